// The overview: cards, the chart of one of them, and tables of what is behind them.

import { LineChart, sparkline } from "../charts.js";
import { element } from "../dom.js";
import * as format from "../format.js";
import { METRICS, metric, SERIES } from "../metrics.js";
import { empty, failure, hiddenText, Panel } from "../panels.js";
import { ranges, TIMEZONE } from "../ranges.js";
import { withView } from "../state.js";
import { barTable, pointsTable } from "../tables.js";

const TOP = 10;

export function isAvailable(context) {
  return context.templates.has(SERIES.playback);
}

export class Page {
  #cards;
  #chart;
  #tables;

  constructor(context) {
    this.context = context;
    this.#cards = new Cards(context);
    this.#chart = new MetricPanel(context);
    this.#tables = [
      contentTable(context),
      searchTable(context),
      qualityTable(context, "Devices", "device"),
      qualityTable(context, "Networks", "network_type"),
      qualityTable(context, "Player versions", "client_version"),
      errorTable(context),
    ].filter(Boolean);
    this.element = element(
      "div",
      {},
      this.#cards.element,
      element("div", { className: "panels" }, this.#chart.panel.element, ...this.#tables.map(({ panel }) => panel.element)),
    );
  }

  title(state) {
    return this.context.app(state) || "All apps";
  }

  async update(state, options) {
    await allOf([
      this.#cards.update(state, options),
      this.#chart.update(state, options),
      ...this.#tables.map((each) => each.update(state, options)),
    ]);
  }
}

// Wait for all; throw the first error.
export async function allOf(promises) {
  const failed = (await Promise.allSettled(promises)).find(({ status }) => status === "rejected");
  if (failed) throw failed.reason;
}

// The answers of one source: {total, series, totalBefore, seriesBefore}.
async function load(context, source, state) {
  const { current, previous, bucket } = ranges(state);
  const name = SERIES[source];
  const ask = (range, seconds) =>
    context.client.report(name, { app_id: context.app(state), ...range, bucket_seconds: seconds, timezone: TIMEZONE }, state.filters);
  const [total, series, totalBefore, seriesBefore] = await Promise.all([
    ask(current, 0),
    ask(current, bucket),
    state.compare ? ask(previous, 0) : null,
    state.compare ? ask(previous, bucket) : null,
  ]);
  return { total: total.rows[0], series, totalBefore: totalBefore?.rows[0], seriesBefore };
}

// Return the points of a column, without a first bucket that begins before the range.
function points(answer, column) {
  const start = new Date(answer.params.from);
  const all = answer.rows.map((row) => ({ time: new Date(row.bucket), value: row[column] }));
  return all.length > 1 && all[0].time < start ? all.slice(1) : all;
}

class Cards {
  #buttons = new Map();

  constructor(context) {
    this.context = context;
    this.metrics = METRICS.filter(({ source }) => context.templates.has(SERIES[source]));
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
    const sources = [...new Set(this.metrics.map(({ source }) => source))];
    try {
      await allOf(sources.map((source) => this.#fill(source, state, isChange)));
    } finally {
      if (this.state === state) this.element.classList.remove("changing");
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

  #show({ key, column, format: shown, good, label }, { total, totalBefore, series }) {
    const [, value, change, spark] = this.#buttons.get(key).children;
    value.textContent = shown.short(total[column]);
    value.title = shown.long(total[column]);
    const relative = totalBefore ? format.relativeChange(total[column], totalBefore[column]) : null;
    change.className = `change ${tone(relative, good)}`;
    change.title = totalBefore ? `${label} in the period before: ${shown.long(totalBefore[column])}` : "";
    change.replaceChildren(
      ...(relative === null ? [] : [`${arrow(relative)} ${format.changeText(relative)}`, hiddenText(" to the period before")]),
    );
    spark.replaceWith(sparkline(points(series, column).map((point) => point.value)));
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

class MetricPanel {
  #chart = new LineChart();
  #table = element("div", {});

  constructor(context) {
    this.context = context;
    this.panel = new Panel(context, "Over time", { isWide: true });
  }

  update(state, options) {
    const chosen = metric(state.metric, METRICS.filter(({ source }) => this.context.templates.has(SERIES[source])));
    const { bucket, isOpen, current } = ranges(state);
    this.panel.heading.textContent = chosen.label;
    this.panel.source(
      SERIES[chosen.source],
      { app_id: this.context.app(state), ...current, bucket_seconds: bucket, timezone: TIMEZONE },
      state.filters,
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

// A panel with a table of a report's first rows.
export function tablePanel(context, title, { report, params = {}, table, none }) {
  if (!context.templates.has(report)) return null;
  const panel = new Panel(context, title);
  return {
    panel,
    update(state, options) {
      const asked = { app_id: context.app(state), ...ranges(state).current, limit: TOP, ...params };
      panel.source(report, asked, state.filters);
      return panel.show(
        () => context.client.report(report, asked, state.filters),
        (answer) => (answer.rows.length ? barTable({ rows: answer.rows, caption: title, ...table(state) }) : empty(none)),
        options,
      );
    },
  };
}

function contentTable(context) {
  return tablePanel(context, "Top content", {
    report: "top_content",
    none: "Nothing was watched in this range.",
    table: (state) => ({
      key: "content_id",
      label: "Content",
      columns: [
        { name: "watch_time", label: "Watched", format: format.duration },
        { name: "unique_viewers", label: "Viewers", format: format.count },
      ],
    }),
  });
}

function searchTable(context) {
  return tablePanel(context, "Searches", {
    report: "search_analytics",
    none: "Nobody searched in this range.",
    table: () => ({
      key: "query",
      label: "Query",
      columns: [
        { name: "searches", label: "Searches", format: format.count },
        { name: "click_through_rate", label: "Clicked", format: format.wholeShare },
      ],
    }),
  });
}

function qualityTable(context, title, property) {
  return tablePanel(context, title, {
    report: "quality_of_experience",
    params: { by: property },
    none: "Nothing was watched in this range.",
    table: () => ({
      key: "value",
      label: title.replace(/s$/, ""),
      columns: [
        { name: "viewers", label: "Viewers", format: format.count },
        { name: "buffer_ratio", label: "Stalled", format: format.share },
        { name: "startup_ms_p95", label: "Startup (p95)", format: format.milliseconds },
      ],
    }),
  });
}

function errorTable(context) {
  return tablePanel(context, "Errors", {
    report: "top_values",
    params: { property: "code", event_name: "video_error" },
    none: "No playback error in this range.",
    table: () => ({
      key: "value",
      label: "Code",
      columns: [
        { name: "events", label: "Errors", format: format.count },
        { name: "unique_users", label: "Viewers", format: format.count },
      ],
    }),
  });
}
