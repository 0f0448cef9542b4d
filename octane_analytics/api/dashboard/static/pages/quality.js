// The quality page: one measure of playback by a property and time, as a heat table.

import { element, hiddenText } from "../dom.js";
import * as format from "../format.js";
import { METRICS } from "../metrics.js";
import { empty, filterAction, Panel, QUALITY as REPORT, tablePanel } from "../panels.js";
import { ranges, TIMEZONE } from "../ranges.js";
import { nameOf } from "../tables.js";
import { allOf, Cards } from "./series.js";
import { sessionsAction } from "./session.js";

const SCORECARD = "qoe_scorecard";
const KEYS = ["failures", "stalled", "startup"];
const DIMENSIONS = { device: "Device", network_type: "Network", client_version: "Player version", country: "Country", app_id: "App" };
const MAX_VALUES = 15;
const MAX_COLUMNS = 36;
const FIFTHS = [0, 1, 2, 3, 4];
// Above, the report reads a part of the users and says so.
const MAX_ERROR_EVENTS = 200_000;
const TOP = 20;

export function isAvailable(context) {
  return context.templates.has(REPORT);
}

export class Page {
  #by = element(
    "select",
    { "aria-label": "Group by" },
    ...Object.entries(DIMENSIONS).map(([value, text]) => element("option", { value }, text)),
  );

  constructor(context) {
    this.context = context;
    this.metrics = METRICS.filter(({ key }) => KEYS.includes(key));
    this.cards = new Cards(context, this.metrics);
    this.panel = new Panel(context, "By value and time", { isWide: true });
    this.panel.tools.append(this.#by);
    this.#by.addEventListener("change", () => context.go({ ...this.state, by: this.#by.value }));
    this.card = tablePanel(context, "Scorecard", {
      report: SCORECARD,
      params: (state) => ({ by: dimension(state) }),
      none: "Nothing was watched in this range.",
      table: (state) => ({
        key: "value",
        label: DIMENSIONS[dimension(state)],
        action: (row) => filterAction(context, dimension(state), row, "value"),
        columns: [
          { name: "views", label: "Views", format: format.count },
          { name: "playback_failure_rate", label: "Failures", format: format.share },
          { name: "startup_ms_p50", label: "Startup (p50)", format: format.milliseconds },
          { name: "startup_ms_p95", label: "Startup (p95)", format: format.milliseconds },
          { name: "stalled_share", label: "Stalled", format: format.share },
          { name: "average_bitrate_kbps", label: "Bitrate", format: format.bitrate },
          { name: "good_views_rate", label: "Good views", format: format.share },
        ],
      }),
    });
    this.card?.panel.element.classList.add("wide");
    this.errors = errorTable(context);
    this.errors?.panel.element.classList.add("wide");
    this.element = element("div", {}, this.cards.element, this.panel.element, this.card?.panel.element, this.errors?.panel.element);
  }

  title(state) {
    return `Quality · ${this.context.app(state) || "all apps"}`;
  }

  update(state, options) {
    this.state = state;
    return allOf([this.cards, { update: this.#showTable.bind(this) }, this.card, this.errors].map((part) => part?.update(state, options)));
  }

  #showTable(state, options) {
    const by = dimension(state);
    const measure = this.metrics.find(({ key }) => key === state.metric) ?? this.metrics[0];
    const { current, bucket } = ranges(state);
    const asked = { app_id: this.context.app(state), ...current, by, bucket_seconds: bucket, timezone: TIMEZONE };
    this.#by.value = by;
    this.panel.heading.textContent = `${measure.label} by ${DIMENSIONS[by].toLowerCase()}`;
    this.panel.menu.fill(REPORT, asked, this.context.filters(REPORT, state));
    return this.panel.show(
      () => this.context.client.report(REPORT, asked, this.context.filters(REPORT, state)),
      ({ rows }) => (rows.length ? heatTable(rows, measure, bucket, DIMENSIONS[by], levelsOf(this.context, measure, rows)) : empty("Nothing was watched in this range.")),
      options,
    );
  }
}

function errorTable(context) {
  return tablePanel(context, "Errors", {
    report: "errors",
    params: { limit: TOP, max_events: MAX_ERROR_EVENTS },
    none: "No playback error in this range.",
    table: (state) => ({
      key: "code",
      label: "Code",
      action: ({ code }) => sessionsAction(context, state, code),
      columns: [
        { name: "occurrences", label: "Errors", format: format.count },
        { name: "views", label: "Views", format: format.count },
        { name: "users", label: "Users", format: format.count },
        { name: "fatal_share", label: "Fatal", format: format.wholeShare },
        { name: "last_seen", label: "Last", format: format.moment },
        { name: "versions", label: "Versions", format: format.list },
      ],
    }),
  });
}

function dimension(state) {
  return Object.hasOwn(DIMENSIONS, state.by) ? state.by : "network_type";
}

function heatTable(rows, { column, format: shown, label }, bucket, heading, levels) {
  const buckets = [...new Set(rows.map((row) => row.bucket))].sort().slice(-MAX_COLUMNS);
  const watched = new Map();
  const cells = new Map();
  for (const row of rows) {
    watched.set(row.value, (watched.get(row.value) ?? 0) + row.watch_time);
    cells.set(JSON.stringify([row.value, row.bucket]), row);
  }
  const values = [...watched.keys()].sort((one, other) => watched.get(other) - watched.get(one)).slice(0, MAX_VALUES);
  const brief = shown === format.share ? format.briefShare : shown;
  const scroll = element(
    "div",
    { className: "scroll", tabIndex: 0, role: "region", "aria-label": `${label} by ${heading.toLowerCase()} and time` },
    element(
      "table",
      { className: "heat" },
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          element("th", { scope: "col" }, heading),
          ...buckets.map((each) => element("th", { scope: "col", title: format.bucketText(new Date(each), bucket) }, columnText(each, bucket))),
        ),
      ),
      element(
        "tbody",
        {},
        ...values.map((value) =>
          element(
            "tr",
            {},
            element("th", { scope: "row", title: nameOf(value) }, nameOf(value)),
            ...buckets.map((each) => heatCell(cells.get(JSON.stringify([value, each])), column, brief, levels)),
          ),
        ),
      ),
    ),
  );
  // The latest column is at the end.
  requestAnimationFrame(() => (scroll.scrollLeft = scroll.scrollWidth));
  return [legend(levels), scroll];
}

function columnText(bucket, seconds) {
  const date = new Date(bucket);
  return seconds >= 86_400 || date.getHours() === 0 ? format.dayText(date) : format.hourText(date);
}

function heatCell(row, column, shown, levels) {
  const value = row?.[column];
  if (typeof value !== "number") return element("td", {}, element("span", { className: "none" }, "–"));
  const level = levels.of(value);
  const title = `${shown.long(value)}, ${level.words}, ${format.count.long(row.views)} views`;
  return element(
    "td",
    { title },
    element(
      "span",
      { className: `level-${level.color}` },
      `${shown.short(value)}${level.mark}`,
      hiddenText(`, ${level.words}, ${format.count.long(row.views)} views`),
    ),
  );
}

// Return the levels of a measure: {text, shown: [{color, mark, words}], of(value)}. They are those of the
// scorecard's good views where it has a threshold, and otherwise relative to the numbers of the page.
function levelsOf(context, { column, threshold, format: shown }, rows) {
  const good = threshold && context.templates.get(SCORECARD)?.parameters.properties[threshold]?.default;
  if (!good) return fifths(rows.map((row) => row[column]), shown);
  const steps = [
    { color: 0, mark: "", words: `good: up to ${shown.short(good)}` },
    { color: 2, mark: "\u00a0!", words: `above ${shown.short(good)}` },
    { color: 4, mark: "\u00a0!!", words: `above ${shown.short(2 * good)}` },
  ];
  return {
    text: "By the threshold of a good view in the scorecard, and twice that:",
    shown: steps,
    of: (value) => steps[value <= good ? 0 : value <= 2 * good ? 1 : 2],
  };
}

function fifths(values, shown) {
  const sorted = values.filter((value) => typeof value === "number").sort((one, other) => one - other);
  const bounds = [...new Set(FIFTHS.map((_, i) => sorted[Math.ceil(((i + 1) * sorted.length) / FIFTHS.length) - 1]))];
  const steps = bounds.map((bound, i) => ({
    color: bounds.length < 2 ? 0 : Math.round((i * (FIFTHS.length - 1)) / (bounds.length - 1)),
    mark: "",
    words: `${i ? "up to" : "lowest: up to"} ${shown.short(bound)}`,
  }));
  return {
    text: "Only relative to each other, from the lowest to the highest fifth of these numbers:",
    shown: steps,
    of: (value) => steps[bounds.findIndex((bound) => value <= bound)],
  };
}

function legend({ text, shown }) {
  return element(
    "div",
    { className: "levels" },
    element("p", { className: "dim" }, text),
    element("ul", {}, ...shown.map(({ color, mark, words }) => element("li", { className: `level-${color}` }, `${words}${mark}`))),
  );
}
