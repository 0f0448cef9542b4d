// The search page: how much is searched, what for, and what is not found. Of one query: what was played then.

import { element } from "../dom.js";
import * as format from "../format.js";
import { METRICS, SERIES } from "../metrics.js";
import { tablePanel } from "../panels.js";
import { withView } from "../state.js";
import { allOf, Cards, MetricPanel } from "./series.js";

const TOP = 50;
const KEYS = ["searches", "searchers", "fruitless", "clicked"];

export function isAvailable(context) {
  return context.templates.has(SERIES.searches) && context.templates.has("search_analytics");
}

// Return the action of a query's row: the page of that query.
export function queryAction(context, state, { query }) {
  if (!isAvailable(context) || !context.canFilter(SERIES.searches)) return null;
  return { href: context.link(withView(state, "search", query)), label: `Show the query ${query}` };
}

export class Page {
  #all = null;
  #one = null;

  constructor(context) {
    this.context = context;
    this.element = element("div", {});
  }

  title(state) {
    return state.id ? `Query \u00b7 ${state.id}` : `Search \u00b7 ${this.context.app(state) || "all apps"}`;
  }

  update(state, options) {
    const shown = state.id ? (this.#one ??= oneQuery(this.context)) : (this.#all ??= allQueries(this.context));
    if (shown.element.parentElement !== this.element) this.element.replaceChildren(shown.element);
    return shown.update(state, options);
  }
}

// Cards and a chart above tables. `narrowed(state)` returns the state of the former.
function searches(context, panels, narrowed = (state) => state) {
  const metrics = METRICS.filter(({ key }) => KEYS.includes(key));
  const [cards, chart] = [new Cards(context, metrics), new MetricPanel(context, metrics)];
  const tables = panels.filter(Boolean);
  return {
    element: element(
      "div",
      {},
      cards.element,
      chart.panel.element,
      element("div", { className: "panels" }, ...tables.map(({ panel }) => panel.element)),
    ),
    update(state, options) {
      const above = narrowed(state);
      return allOf([cards.update(above, options), chart.update(above, options), ...tables.map((each) => each.update(state, options))]);
    },
  };
}

function allQueries(context) {
  return searches(context, [
    tablePanel(context, "Queries", {
      report: "search_analytics",
      params: { limit: TOP },
      none: "Nobody searched in this range.",
      table: (state) => queries(context, state, "searches", "Searches"),
    }),
    // The report lists by frequency: what is not found most is sorted out of its first thousand.
    tablePanel(context, "Without result", {
      report: "search_analytics",
      params: { limit: 1000 },
      none: "Every search found something in this range.",
      rows: (rows) =>
        rows
          .filter((row) => row.zero_result_searches > 0)
          .sort((one, other) => other.zero_result_searches - one.zero_result_searches)
          .slice(0, TOP),
      table: (state) => queries(context, state, "zero_result_searches", "Without result"),
    }),
  ]);
}

function queries(context, state, measured, label) {
  return {
    key: "query",
    label: "Query",
    action: (row) => queryAction(context, state, row),
    columns: [
      { name: measured, label, format: format.count },
      { name: "unique_users", label: "Users", format: format.count },
      { name: "click_through_rate", label: "Clicked", format: format.wholeShare },
    ],
  };
}

function oneQuery(context) {
  const ofQuery = (state) => [{ property: "query", op: "eq", value: state.id }];
  const values = (title, event, property, label, none, action) =>
    tablePanel(context, title, {
      report: "top_values",
      params: { event_name: event, property },
      filters: ofQuery,
      none,
      table: (state) => ({
        key: "value",
        label,
        action: (row) => action(state, row.value),
        columns: [
          { name: "events", label: event === "search" ? "Searches" : "Clicks", format: format.count },
          { name: "unique_users", label: "Users", format: format.count },
        ],
      }),
    });
  const link = (view, words) => (state, value) => ({ href: context.link(withView(state, view, value)), label: `${words} ${value}` });
  return searches(
    context,
    [
      values("Played after it", "search_click", "content_id", "Content", "No result with a content_id was clicked in this range.", link("content", "Show")),
      values("Streams played after it", "search_click", "stream_id", "Stream", "No result with a stream_id was clicked in this range.", link("content", "Show")),
      values("Searched on", "search", "device", "Device", "These searches have no device.", () => null),
      values("Sessions with this search", "search", "session_id", "Session", "These searches have no session_id.", link("session", "Timeline of")),
    ],
    (state) => ({ ...state, filters: [...state.filters, ...ofQuery(state)] }),
  );
}
