// The page of one content: its numbers, where its viewers watch and leave, and its quality by device.

import { LineChart } from "../charts.js";
import { element } from "../dom.js";
import * as format from "../format.js";
import { METRICS, SERIES } from "../metrics.js";
import { empty, filterAction, isLeftOut, notFiltered, Panel, qualityTotals, tablePanel } from "../panels.js";
import { ranges } from "../ranges.js";
import { pointsTable } from "../tables.js";
import { withView } from "../state.js";
import { allOf, Cards, MetricPanel } from "./series.js";

const KEYS = ["viewers", "views", "watch_time", "view_duration", "failures", "stalled", "startup"];
const TOP = 50;
// The report lists by time watched: the order by growth is that of its first thousand.
const RANKED = 1000;
const GAINED = { name: "gained", label: "More than before", format: format.signedDuration };
const CHANGE = { name: "watch_time_change", label: "Change", format: format.growth };
const ORDERED = "Of the 1,000 most watched of this range, compared with the period before. Content that nobody watched in this range is not listed.";
const ORDERS = {
  "": { label: "Most watched", sign: 0, columns: [], note: "" },
  growing: { label: "Growing most", sign: 1, columns: [GAINED], note: ORDERED },
  falling: { label: "Falling most", sign: -1, columns: [{ ...GAINED, label: "Less than before" }], note: ORDERED },
};

export function isAvailable(context) {
  return context.canFilter(SERIES.playback) && context.templates.has("top_content");
}

export class Page {
  #list = null;
  #one = null;

  constructor(context) {
    this.context = context;
    this.element = element("div", {});
  }

  title(state) {
    return state.id || `Content \u00b7 ${this.context.app(state) || "all apps"}`;
  }

  update(state, options) {
    if (state.id === "") {
      this.#list ??= new ContentList(this.context);
      this.#showOnly(this.#list.element);
      return this.#list.update(state, options);
    }
    this.#one ??= new OneContent(this.context);
    this.#showOnly(this.#one.element);
    return this.#one.update(state, options);
  }

  #showOnly(shown) {
    if (shown.parentElement !== this.element) this.element.replaceChildren(shown);
  }
}

function order(state) {
  return Object.hasOwn(ORDERS, state.by) ? ORDERS[state.by] : ORDERS[""];
}

// Return the rows in the order: by time gained or lost, in seconds, without those that went the other way.
function ranked(rows, { sign }) {
  if (!sign) return rows;
  return rows
    .map((row) => ({ ...row, gained: row.watch_time - (row.watch_time_before ?? 0) }))
    .filter(({ gained }) => gained * sign > 0)
    .sort((one, other) => (other.gained - one.gained) * sign)
    .slice(0, TOP);
}

class ContentList {
  #order = element("select", { "aria-label": "Order" }, ...Object.entries(ORDERS).map(([value, { label }]) => element("option", { value }, label)));

  constructor(context) {
    this.#order.addEventListener("change", () => context.go({ ...this.state, by: this.#order.value }));
    this.table = tablePanel(context, "Content", {
      report: "top_content",
      params: (state) => ({
        limit: order(state).sign ? RANKED : TOP,
        compare: state.compare || order(state).sign ? ranges(state).compared : "",
      }),
      none: "Nothing was watched in this range.",
      rows: (rows) => ranked(rows, order(this.state)),
      note: (state) => order(state).note,
      table: (state) => ({
        key: "content_id",
        label: "Content",
        action: (row) => ({ href: context.link(withView(state, "content", row.content_id)), label: `Show ${row.content_id}` }),
        columns: [
          ...order(state).columns,
          ...(order(state).sign ? [CHANGE] : []),
          { name: "watch_time", label: "Watched", format: format.duration },
          ...(state.compare && !order(state).sign ? [CHANGE] : []),
          { name: "unique_viewers", label: "Viewers", format: format.count },
          { name: "starts", label: "Starts", format: format.count },
          { name: "buffer_ms_per_watch_minute", label: "Stalled per minute", format: format.milliseconds },
        ],
      }),
    });
    this.table.panel.tools.append(this.#order);
    this.element = this.table.panel.element;
  }

  update(state, options) {
    this.state = state;
    this.#order.value = Object.hasOwn(ORDERS, state.by) ? state.by : "";
    return this.table.update(state, options);
  }
}

class OneContent {
  constructor(context) {
    const metrics = METRICS.filter(({ key }) => KEYS.includes(key));
    this.cards = new Cards(context, metrics);
    this.chart = new MetricPanel(context, metrics);
    this.panels = [
      curvePanel(context, "Where it is watched", {
        report: "audience_retention",
        params: (state) => ({ content: state.id }),
        label: "Watched, of all views",
        beforeLabel: "Contents of similar length",
        point: (row) => ({ time: row.starts_at, value: row.ratio }),
        before: (row) => ({ time: row.starts_at, value: row.similar_ratio }),
        none: "Its events have no position, or nobody watched it in this range.",
      }),
      curvePanel(context, "How long it is watched", {
        report: "survival",
        params: (state) => ({ content: state.id, by: "content" }),
        label: "Plays that watched as long",
        point: (row) => ({ time: row.watched_seconds, value: row.share }),
        none: "Nobody played it in this range.",
      }),
      tablePanel(context, "Devices", {
        ...qualityTotals("device"),
        none: "Nobody watched it in this range.",
        table: () => ({
          key: "value",
          label: "Device",
          action: (row) => filterAction(context, "device", row, "value"),
          columns: [
            { name: "viewers", label: "Viewers", format: format.count },
            { name: "stalled_share", label: "Stalled", format: format.share },
            { name: "startup_ms_p95", label: "Startup (p95)", format: format.milliseconds },
          ],
        }),
      }),
    ].filter(Boolean);
    this.element = element(
      "div",
      {},
      this.cards.element,
      this.chart.panel.element,
      element("div", { className: "panels" }, ...this.panels.map(({ panel }) => panel.element)),
    );
  }

  update(state, options) {
    const filters = [...state.filters, { property: "content", op: "eq", value: state.id }];
    const filtered = { ...state, filters };
    // Reports with a parameter for the content are asked by it.
    return allOf([this.cards, this.chart, ...this.panels].map((part) => part.update(part.isByParameter ? state : filtered, options)));
  }
}

// A panel with the curve of a report over seconds of a video.
function curvePanel(context, title, { report, params, label, point, before = null, beforeLabel, none }) {
  if (!context.templates.has(report)) return null;
  const panel = new Panel(context, title);
  const chart = new LineChart();
  const table = element("div", {});
  const axis = (seconds) => format.position(seconds);
  return {
    panel,
    isByParameter: true,
    update(state, options) {
      const asked = { app_id: context.app(state), ...ranges(state).current, ...params(state) };
      panel.menu.fill(report, asked, context.filters(report, state));
      return panel.show(
        () => (isLeftOut(context, report, state) ? null : context.client.report(report, asked, context.filters(report, state))),
        (answer) => {
          if (answer === null) return notFiltered();
          const points = answer.rows.map(point);
          if (!points.some(({ value }) => value)) return empty(none);
          const shown = { label, beforeLabel, format: format.wholeShare, bucket: 0, isOpen: false, axis, points, before: before && answer.rows.map(before) };
          requestAnimationFrame(() => chart.draw(shown));
          table.replaceChildren(pointsTable({ ...shown, name: axis }));
          return [chart.element, table];
        },
        options,
      );
    },
  };
}
