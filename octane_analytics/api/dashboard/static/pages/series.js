// Numbers over time: cards with sparklines, and the chart of one of them.

import { LineChart, sparkline } from "../charts.js";
import { element } from "../dom.js";
import * as format from "../format.js";
import { metric, SERIES } from "../metrics.js";
import { empty, hiddenText, Panel } from "../panels.js";
import { ranges, TIMEZONE } from "../ranges.js";
import { pointsTable } from "../tables.js";

// Wait for all; throw the first error.
export async function allOf(promises) {
  const failed = (await Promise.allSettled(promises)).find(({ status }) => status === "rejected");
  if (failed) throw failed.reason;
}

// The answers of one source: {total, series, totalBefore, seriesBefore}.
async function load(context, source, state) {
  const { current, previous, bucket, isOpen } = ranges(state);
  const name = SERIES[source];
  const ask = (range, seconds) =>
    context.client.report(name, { app_id: context.app(state), ...range, bucket_seconds: seconds, timezone: TIMEZONE }, context.filters(name, state));
  const [total, series, totalBefore, seriesBefore] = await Promise.all([
    ask(current, 0),
    ask(current, bucket),
    state.compare ? ask(previous, 0) : null,
    state.compare ? ask(previous, bucket) : null,
  ]);
  return { total: total.rows[0], series, totalBefore: totalBefore?.rows[0], seriesBefore, isOpen };
}

// Return the points of a column, without a first bucket that begins before the range.
function points(answer, column) {
  const start = new Date(answer.params.from);
  const all = answer.rows.map((row) => ({ time: new Date(row.bucket), value: row[column] }));
  return all.length > 1 && all[0].time < start ? all.slice(1) : all;
}

export class Cards {
  #buttons = new Map();

  constructor(context, metrics) {
    this.context = context;
    this.metrics = metrics;
    for (const each of this.metrics) this.#buttons.set(each.key, this.#card(each));
    this.element = element("section", { className: "cards", "aria-label": "Key numbers" }, ...this.#buttons.values());
  }

  #card({ key, label }) {
    const card = element(
      "button",
      { className: "card", type: "button" },
      element("span", { className: "label" }, label),
      element("span", { className: "value" }, format.ABSENT),
      element("span", { className: "change" }),
      sparkline([]),
    );
    card.addEventListener("click", () => this.context.go({ ...this.state, metric: key }));
    return card;
  }

  async update(state, { isChange }) {
    const isOtherQuestion = isChange && JSON.stringify({ ...state, metric: "" }) !== JSON.stringify({ ...this.state, metric: "" });
    this.state = state;
    const chosen = metric(state.metric, this.metrics).key;
    for (const [key, card] of this.#buttons) card.setAttribute("aria-pressed", String(key === chosen));
    if (isOtherQuestion) this.element.classList.add("changing");
    this.element.setAttribute("aria-busy", "true");
    const sources = [...new Set(this.metrics.map(({ source }) => source))];
    try {
      await allOf(sources.map((source) => this.#fill(source, state, isChange)));
    } finally {
      if (this.state === state) {
        this.element.classList.remove("changing");
        this.element.removeAttribute("aria-busy");
      }
    }
  }

  async #fill(source, state, isChange) {
    const mine = this.metrics.filter((each) => each.source === source);
    try {
      const answers = await load(this.context, source, state);
      if (this.state === state) for (const each of mine) this.#show(each, answers);
    } catch (error) {
      if (this.state === state && isChange) for (const each of mine) this.#clear(each);
      throw error;
    }
  }

  #show({ key, column, format: shown, good, label }, { total, totalBefore, series, isOpen }) {
    const [, value, change, spark] = this.#buttons.get(key).children;
    value.textContent = shown.short(total[column]);
    value.title = shown.long(total[column]);
    const relative = totalBefore ? format.relativeChange(total[column], totalBefore[column]) : null;
    change.className = `change ${tone(relative, good)}`;
    change.title = totalBefore ? `${label} in the period before: ${shown.long(totalBefore[column])}` : "";
    change.replaceChildren(
      ...(relative === null ? [] : [`${arrow(relative)} ${format.changeText(relative)}`, hiddenText(" to the period before")]),
    );
    const values = points(series, column).map((point) => point.value);
    // A bucket that still runs would look like a fall.
    spark.replaceWith(sparkline(isOpen && values.length > 2 ? values.slice(0, -1) : values));
  }

  #clear({ key }) {
    const [, value, change, spark] = this.#buttons.get(key).children;
    value.textContent = format.ABSENT;
    change.replaceChildren();
    spark.replaceWith(sparkline([]));
  }
}

function arrow(relative) {
  if (Math.abs(relative) < 0.005) return "→";
  return relative > 0 ? "▲" : "▼";
}

function tone(relative, good) {
  if (relative === null || good === 0 || Math.abs(relative) < 0.005) return "";
  return relative * good > 0 ? "good" : "bad";
}

export class MetricPanel {
  #chart = new LineChart();
  #table = element("div", {});

  constructor(context, metrics) {
    this.context = context;
    this.metrics = metrics;
    this.panel = new Panel(context, "Over time", { isWide: true });
  }

  update(state, options) {
    const chosen = metric(state.metric, this.metrics);
    const { bucket, isOpen, current } = ranges(state);
    this.panel.heading.textContent = chosen.label;
    this.panel.source(
      SERIES[chosen.source],
      { app_id: this.context.app(state), ...current, bucket_seconds: bucket, timezone: TIMEZONE },
      this.context.filters(SERIES[chosen.source], state),
    );
    return this.panel.show(
      () => load(this.context, chosen.source, state),
      ({ series, seriesBefore }) => {
        const shown = {
          label: chosen.label,
          format: chosen.format,
          bucket,
          isOpen,
          points: points(series, chosen.column),
          before: seriesBefore ? points(seriesBefore, chosen.column) : null,
        };
        if (!shown.points.some(({ value }) => value)) {
          return empty("No events in this range. Choose another range or app, or remove a filter.");
        }
        // In the next frame the panel is part of the page and has its width.
        requestAnimationFrame(() => this.#chart.draw(shown));
        const isOpenTable = this.#table.querySelector("details")?.open ?? false;
        const table = pointsTable({ ...shown, name: (time) => format.bucketText(time, bucket) });
        table.open = isOpenTable;
        this.#table.replaceChildren(table);
        return [this.#chart.element, this.#table];
      },
      options,
    );
  }
}
