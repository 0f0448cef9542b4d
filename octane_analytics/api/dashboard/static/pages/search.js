// The search page: how much is searched, what for, and what is not found.

import { element } from "../dom.js";
import * as format from "../format.js";
import { METRICS } from "../metrics.js";
import { tablePanel } from "../panels.js";
import { allOf, Cards, MetricPanel } from "./series.js";

const TOP = 50;
const KEYS = ["searches", "searchers", "fruitless", "clicked"];

export function isAvailable(context) {
  return context.templates.has("searches_over_time") && context.templates.has("search_analytics");
}

export class Page {
  constructor(context) {
    this.context = context;
    const metrics = METRICS.filter(({ key }) => KEYS.includes(key));
    this.parts = [
      new Cards(context, metrics),
      new MetricPanel(context, metrics),
      tablePanel(context, "Queries", {
        report: "search_analytics",
        params: { limit: TOP },
        none: "Nobody searched in this range.",
        table: () => queries("searches", "Searches"),
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
        table: () => queries("zero_result_searches", "Without result"),
      }),
    ];
    const [cards, chart, ...panels] = this.parts;
    this.element = element(
      "div",
      {},
      cards.element,
      chart.panel.element,
      element("div", { className: "panels" }, ...panels.map(({ panel }) => panel.element)),
    );
  }

  title(state) {
    return `Search · ${this.context.app(state) || "all apps"}`;
  }

  update(state, options) {
    return allOf(this.parts.map((part) => part.update(state, options)));
  }
}

function queries(measured, label) {
  return {
    key: "query",
    label: "Query",
    columns: [
      { name: measured, label, format: format.count },
      { name: "unique_users", label: "Users", format: format.count },
      { name: "click_through_rate", label: "Clicked", format: format.wholeShare },
    ],
  };
}
