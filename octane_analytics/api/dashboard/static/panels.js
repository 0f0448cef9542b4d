// Panels: a title, a body that an answer fills, and a menu with the requests that it came from.

import { element, hiddenText, replaceKeepingFocus } from "./dom.js";
import { wholeShare } from "./format.js";
import { SourceMenu } from "./menu.js";
import { SERIES } from "./metrics.js";
import { ranges } from "./ranges.js";
import { withFilter } from "./state.js";
import { barTable } from "./tables.js";

const TOP_ROWS = 10;
export const QUALITY = "quality_over_time";

// What a reader can do about an error.
export function advice(error) {
  const byStatus = {
    0: "Check the connection; the page tries again by itself.",
    403: "Ask an operator for a token that permits this report.",
    422: "Choose another range or remove a filter.",
    429: "The token's rate is spent: wait a moment, or ask for a higher one.",
    503: "ClickHouse is unavailable or busy; the page tries again by itself.",
    504: "Choose a shorter range, or one app.",
  };
  return byStatus[error.status] ?? "Reload the page; if it stays, the service's log has the reason.";
}

export class Panel {
  #ticket = 0;
  #isFilled = false;

  // `context` has the client and the templates; `isWide` spans all columns.
  constructor(context, title, { isWide = false } = {}) {
    this.context = context;
    this.heading = element("h2", {}, title);
    this.body = element("div", { className: "panel-body" }, element("p", { className: "hint" }, "Loading …"));
    this.tools = element("div", {});
    this.menu = new SourceMenu(context, title);
    this.element = element(
      "section",
      { className: isWide ? "panel wide" : "panel", "aria-label": title },
      element("div", { className: "panel-head" }, this.heading, this.tools, this.menu.element),
      this.body,
    );
  }

  // Run `load` and pass its result to `render`, which returns the children of the body. What is shown
  // stays until then. A later call supersedes an earlier one.
  async show(load, render, { isChange = true } = {}) {
    this.#ticket += 1;
    const ticket = this.#ticket;
    this.element.setAttribute("aria-busy", "true");
    if (isChange) this.element.classList.add("changing");
    try {
      const result = await load();
      if (ticket !== this.#ticket) return;
      replaceKeepingFocus(this.body, ...[render(result)].flat());
      this.#isFilled = true;
    } catch (error) {
      if (ticket !== this.#ticket) return;
      if (!isChange && this.#isFilled) throw error; // a refresh: the older numbers stay, with a notice
      this.body.replaceChildren(failure(error));
      this.#isFilled = false;
      throw error;
    } finally {
      if (ticket === this.#ticket) {
        this.element.removeAttribute("aria-busy");
        this.element.classList.remove("changing");
      }
    }
  }
}

// A panel with a table of a report's first rows. `filters(state)` are its own, in addition to the page's;
// `more(state)` returns the state of a page with more of it.
export function tablePanel(context, title, { report, params = {}, limit = TOP_ROWS, filters = () => [], rows = (all) => all, note = () => "", table, none, more = null }) {
  if (!context.templates.has(report)) return null;
  const panel = new Panel(context, title);
  return {
    panel,
    update(state, options) {
      const asked = { app_id: context.app(state), ...ranges(state).current, limit, ...(typeof params === "function" ? params(state) : params) };
      const narrowed = [...context.filters(report, state), ...filters(state)];
      panel.menu.fill(report, asked, narrowed);
      if (more) panel.tools.replaceChildren(moreLink(context.link(more(state)), title));
      return panel.show(
        () => (isLeftOut(context, report, state) ? null : context.client.report(report, asked, narrowed)),
        (answer) => {
          if (answer === null) return notFiltered();
          const shown = rows(answer.rows);
          if (!shown.length) return empty(none);
          const said = note(state) ? element("p", { className: "dim" }, note(state)) : null;
          return [said, barTable({ rows: shown, caption: title, ...table(state) }), estimate(answer.rows)];
        },
        options,
      );
    },
  };
}

function moreLink(href, title) {
  return element("a", { href, className: "more" }, "More", hiddenText(` about ${title}`));
}

// Return a line that says so if a report has read a part of the users; null otherwise.
export function estimate(rows) {
  const share = rows[0]?.sample;
  if (typeof share !== "number" || share >= 1) return null;
  return element("p", { className: "dim" }, `Estimated from ${wholeShare.short(share)} of the users.`);
}

// The report of playback quality by a property over the whole range. quality_of_experience has more columns,
// which cost ClickHouse twice as much.
export function qualityTotals(property) {
  return { report: QUALITY, params: { by: property, bucket_seconds: 0 } };
}

// Whether filters are set that the report does not take: its numbers would be of other events.
export function isLeftOut(context, report, state) {
  return state.filters.length > 0 && !context.canFilter(report);
}

export function notFiltered() {
  return empty("This report takes no filters. Remove them to see it.");
}

// Return the action of a row that filters the page by a property's value.
export function filterAction(context, property, row, key) {
  if (row[key] === "" || !context.canFilter(SERIES.playback)) return null;
  return {
    label: `Show only ${property} = ${row[key]}`,
    onClick: () => context.go(withFilter(context.state, property, String(row[key]))),
  };
}

export function failure(error) {
  return element(
    "div",
    { className: "failure", role: "alert" },
    element("p", {}, `${error.message}`),
    element("p", { className: "dim" }, advice(error)),
  );
}

export function empty(text) {
  return element("p", { className: "hint" }, text);
}
