// The page of one content: its numbers, where its viewers watch and leave, and its quality by device.

import { LineChart } from "../charts.js";
import { element } from "../dom.js";
import * as format from "../format.js";
import { METRICS, SERIES } from "../metrics.js";
import { empty, filterAction, isLeftOut, notFiltered, Panel, tablePanel } from "../panels.js";
import { ranges } from "../ranges.js";
import { pointsTable } from "../tables.js";
import { withView } from "../state.js";
import { allOf, Cards, MetricPanel } from "./series.js";

const KEYS = ["viewers", "views", "watch_time", "view_duration", "failures", "stalled", "startup"];
const TOP = 50;

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

class ContentList {
  constructor(context) {
    this.table = tablePanel(context, "Most watched content", {
      report: "top_content",
      params: { limit: TOP },
      none: "Nothing was watched in this range.",
      table: (state) => ({
        key: "content_id",
        label: "Content",
        action: (row) => ({ href: context.link(withView(state, "content", row.content_id)), label: `Show ${row.content_id}` }),
        columns: [
          { name: "watch_time", label: "Watched", format: format.duration },
          { name: "unique_viewers", label: "Viewers", format: format.count },
          { name: "starts", label: "Starts", format: format.count },
          { name: "buffer_ms_per_watch_minute", label: "Stalled per minute", format: format.milliseconds },
        ],
      }),
    });
    this.element = this.table.panel.element;
  }

  update(state, options) {
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
        report: "quality_of_experience",
        params: { by: "device" },
        none: "Nobody watched it in this range.",
        table: (state) => ({
          key: "value",
          label: "Device",
          // The filter for the content is not the page's.
          action: (row) => filterAction(context, { ...state, filters: state.filters.slice(0, -1) }, "device", row, "value"),
          columns: [
            { name: "viewers", label: "Viewers", format: format.count },
            { name: "buffer_ratio", label: "Stalled", format: format.share },
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
