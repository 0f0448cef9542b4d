// The overview: cards, the chart of one of them, and tables of contents, searches, devices and errors.

import { element } from "../dom.js";
import * as format from "../format.js";
import { METRICS, SERIES } from "../metrics.js";
import { filterAction, tablePanel } from "../panels.js";
import { withView } from "../state.js";
import { WATCHING, WatchingNow } from "./live.js";
import { allOf, Cards, MetricPanel } from "./series.js";
import { queryAction } from "./search.js";
import { ERROR_VALUES, sessionsAction } from "./session.js";

// The first ten values of device, network_type and client_version: one request for three tables.
const BREAKDOWN = "quality_breakdown";
const KEYS = ["viewers", "views", "watch_time", "view_duration", "failures", "stalled", "startup", "searches", "fruitless"];

export function isAvailable(context) {
  return context.templates.has(SERIES.playback);
}

export class Page {
  #cards;
  #chart;
  #watching;
  #tables;

  constructor(context) {
    this.context = context;
    const metrics = METRICS.filter(({ key, source }) => KEYS.includes(key) && context.templates.has(SERIES[source]));
    this.#cards = new Cards(context, metrics);
    this.#chart = new MetricPanel(context, metrics);
    this.#watching = context.templates.has(WATCHING) ? new WatchingNow(context) : null;
    if (this.#watching) this.#cards.element.prepend(this.#watching.element);
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
      this.#chart.panel.element,
      element("div", { className: "panels" }, ...this.#tables.map(({ panel }) => panel.element)),
    );
  }

  close() {
    this.#watching?.close();
  }

  title(state) {
    return this.context.app(state) || "All apps";
  }

  async update(state, options) {
    await allOf([
      this.#cards.update(state, options),
      this.#chart.update(state, options),
      this.#watching?.update(state, options),
      ...this.#tables.map((each) => each.update(state, options)),
    ]);
  }
}

function contentTable(context) {
  return tablePanel(context, "Top content", {
    report: "top_content",
    none: "Nothing was watched in this range.",
    more: (state) => withView(state, "content"),
    table: (state) => ({
      key: "content_id",
      label: "Content",
      action: (row) => contentAction(context, state, row),
      columns: [
        { name: "watch_time", label: "Watched", format: format.duration },
        { name: "unique_viewers", label: "Viewers", format: format.count },
      ],
    }),
  });
}

function contentAction(context, state, row) {
  if (!context.canFilter(SERIES.playback)) return null;
  return { href: context.link(withView(state, "content", row.content_id)), label: `Show ${row.content_id}` };
}

function searchTable(context) {
  return tablePanel(context, "Searches", {
    report: "search_analytics",
    none: "Nobody searched in this range.",
    more: (state) => withView(state, "search"),
    table: (state) => ({
      key: "query",
      label: "Query",
      action: (row) => queryAction(context, state, row),
      columns: [
        { name: "searches", label: "Searches", format: format.count },
        { name: "click_through_rate", label: "Clicked", format: format.wholeShare },
      ],
    }),
  });
}

function qualityTable(context, title, property) {
  return tablePanel(context, title, {
    report: BREAKDOWN,
    limit: null,
    rows: (all) => all.filter((row) => row.property === property),
    none: "Nothing was watched in this range.",
    more: (state) => withView(state, "quality", "", property),
    table: () => ({
      key: "value",
      label: title.replace(/s$/, ""),
      action: (row) => filterAction(context, property, row, "value"),
      columns: [
        { name: "viewers", label: "Viewers", format: format.count },
        { name: "stalled_share", label: "Stalled", format: format.share },
        { name: "startup_ms_p95", label: "Startup (p95)", format: format.milliseconds },
      ],
    }),
  });
}

// Frequencies of the codes only, which read little; the quality page has the report of errors.
function errorTable(context) {
  return tablePanel(context, "Errors", {
    report: ERROR_VALUES.report,
    params: { ...ERROR_VALUES.params, property: "code" },
    none: "No playback error in this range.",
    more: (state) => withView(state, "quality"),
    table: (state) => ({
      key: "value",
      label: "Code",
      action: ({ value }) => sessionsAction(context, state, value),
      columns: [
        { name: "events", label: "Errors", format: format.count },
        { name: "unique_users", label: "Users", format: format.count },
        { name: "share", label: "Share", format: format.wholeShare },
      ],
    }),
  });
}
