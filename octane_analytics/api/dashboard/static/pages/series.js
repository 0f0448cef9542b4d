// Numbers over time: cards with sparklines, and the chart of one of them.

import { LineChart, sparkline } from "../charts.js";
import { element, hiddenText } from "../dom.js";
import * as format from "../format.js";
import { metric, SERIES } from "../metrics.js";
import { empty, Panel } from "../panels.js";
import { addDays, DAY, ranges, TIMEZONE } from "../ranges.js";
import { pointsTable } from "../tables.js";

// Wait for all; throw the first error.
export async function allOf(promises) {
  const failed = (await Promise.allSettled(promises)).find(({ status }) => status === "rejected");
  if (failed) throw failed.reason;
}

// The parameters of a source over the range, in one answer with the totals of the range.
function question(context, state) {
  const { current, compared, bucket } = ranges(state);
  const compare = state.compare ? compared : "";
  return { app_id: context.app(state), ...current, bucket_seconds: bucket, timezone: TIMEZONE, compare, totals: 1 };
}

// The answer of one source: {total, series, isOpen}. With a comparison each row has the values of the
// period before beside its own, as NAME_before.
async function load(context, source, state) {
  const name = SERIES[source];
  const series = await context.client.report(name, question(context, state), context.filters(name, state));
  return { total: series.totals, series, isOpen: ranges(state).isOpen };
}

// Return the points of a column, and those of the period before or null, without a first bucket that
// begins before the range.
function points({ rows, params, compare }, column, bucket) {
  const start = new Date(params.from);
  const shown = rows.length > 1 && new Date(rows[0].bucket) < start ? rows.slice(1) : rows;
  const times = shown.map((row) => new Date(row.bucket));
  const shift = compare ? start - new Date(compare.from) : 0;
  const earlier = (time) => (bucket < DAY ? new Date(time - shift) : addDays(time, -Math.round(shift / (DAY * 1000))));
  return {
    points: shown.map((row, i) => ({ time: times[i], value: row[column] })),
    before: compare ? shown.map((row, i) => ({ time: earlier(times[i]), value: row[`${column}_before`] })) : null,
  };
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
    card.addEventListener("click", () => this.context.go({ ...this.context.state, metric: key }));
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

  #show({ key, column, format: shown, good, label }, { total, series, isOpen }) {
    const [, value, change, spark] = this.#buttons.get(key).children;
    value.textContent = shown.short(total[column]);
    value.title = shown.long(total[column]);
    const before = total[`${column}_before`];
    const relative = format.relativeChange(total[column], before);
    change.className = `change ${tone(relative, good)}`;
    change.title = before === undefined ? "" : `${label} in the period before: ${shown.long(before)}`;
    change.replaceChildren(
      ...(relative === null ? [] : [`${format.arrow(relative)} ${format.changeText(relative)}`, hiddenText(" to the period before")]),
    );
    const values = points(series, column, 0).points.map((point) => point.value);
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

function tone(relative, good) {
  if (relative === null || good === 0 || Math.abs(relative) < format.SAME) return "";
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
    const { bucket, isOpen } = ranges(state);
    const name = SERIES[chosen.source];
    this.panel.heading.textContent = chosen.label;
    const note = "The number of the card is in `totals`.";
    this.panel.menu.fill(name, question(this.context, state), this.context.filters(name, state), note);
    return this.panel.show(
      () => load(this.context, chosen.source, state),
      ({ series }) => {
        const shown = {
          label: chosen.label,
          format: chosen.format,
          bucket,
          isOpen,
          ...points(series, chosen.column, bucket),
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
