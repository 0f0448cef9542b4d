// The session page: every event of one session or view, for support.

import { element } from "../dom.js";
import * as format from "../format.js";
import { empty, Panel, tablePanel } from "../panels.js";
import { ranges } from "../ranges.js";
import { withView } from "../state.js";

const REPORT = "session_timeline";
const LIMIT = 1000;
const TOP = 20;
// The report that counts a property of the playback errors.
export const ERROR_VALUES = { report: "top_values", params: { event_name: "video_error" } };
const BAD = new Set(["video_error", "video_buffering"]);
// Shown in columns of their own.
const SHOWN = new Set(["event_id", "session_id", "view_id", "content_id", "stream_id", "video_id"]);

export function isAvailable(context) {
  return context.templates.has(REPORT);
}

// Return the action of an error's row: the sessions with that code.
export function sessionsAction(context, state, code) {
  if (!context.templates.has(REPORT) || !context.canFilter(ERROR_VALUES.report)) return null;
  return { href: context.link(withView(state, "session", "", code)), label: `Sessions with ${code}` };
}

export class Page {
  #input = element("input", { id: "session-id", type: "search", required: true, spellcheck: false, autocomplete: "off" });

  constructor(context) {
    this.context = context;
    this.panel = new Panel(context, "Timeline");
    this.failed = sessionsPanel(context, "Sessions with playback errors", {
      ...ERROR_VALUES,
      filters: (state) => (state.by ? [{ property: "code", op: "eq", value: state.by }] : []),
      none: "No playback error in this range has a session_id.",
    });
    this.ofUser = sessionsPanel(context, "Sessions of the user", {
      report: ERROR_VALUES.report,
      filters: (state) => [{ property: "user_id", op: "eq", value: state.id }],
      none: "No session of such a user either. Choose a longer range.",
    });
    const form = element(
      "form",
      { className: "controls lookup", role: "search" },
      element("label", { htmlFor: "session-id" }, "Session, view or user"),
      this.#input,
      element("button", { className: "button primary", type: "submit" }, "Show"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      context.go(withView(this.state, "session", this.#input.value.trim()));
    });
    const hint = element("p", { className: "dim" }, "Enter the session_id, view_id or user_id of a report or a complaint. The whole range is searched.");
    this.element = element("div", {}, form, hint, this.panel.element, this.failed?.panel.element, this.ofUser?.panel.element);
  }

  title(state) {
    if (state.id) return `Session ${state.id}`;
    return state.by ? `Sessions \u00b7 ${state.by}` : "Sessions";
  }

  async update(state, options) {
    this.state = state;
    if (options.isChange) this.#input.value = state.id;
    this.#showOnly(state.id ? this.panel : this.failed?.panel);
    if (state.id) await this.#showSession(state, options);
    else await this.failed?.update(state, options);
  }

  async #showSession(state, options) {
    const asked = { app_id: this.context.app(state), ...ranges(state).current, id: state.id, limit: LIMIT };
    this.panel.menu.fill(REPORT, asked);
    let isFound = true;
    await this.panel.show(
      () => this.context.client.report(REPORT, asked),
      ({ rows, truncated }) => {
        isFound = rows.length > 0;
        if (!isFound) return empty("No event of this session or view in this range. Choose a longer range.");
        return [summary(rows, truncated), timeline(rows)];
      },
      options,
    );
    if (isFound || this.state !== state) return;
    this.#showOnly(this.panel, this.ofUser?.panel);
    await this.ofUser?.update(state, options);
  }

  #showOnly(...shown) {
    for (const panel of [this.panel, this.failed?.panel, this.ofUser?.panel]) {
      if (panel) panel.element.hidden = !shown.includes(panel);
    }
  }
}

// A table of session_ids, most events first, that lead to their timelines.
function sessionsPanel(context, title, { report, params = {}, filters, none }) {
  if (!context.canFilter(report)) return null;
  return tablePanel(context, title, {
    report,
    params: { ...params, property: "session_id", limit: TOP },
    filters,
    none,
    table: (state) => ({
      key: "value",
      label: "Session",
      action: ({ value }) => ({ href: context.link(withView(state, "session", value)), label: `Timeline of ${value}` }),
      columns: [{ name: "events", label: "Events", format: format.count }],
    }),
  });
}

function summary(rows, isTruncated) {
  const users = [...new Set(rows.map((row) => row.user_id))].slice(0, 3).join(", ");
  const views = new Set(rows.map((row) => row.view_id).filter(Boolean)).size;
  const parts = [users, `${format.count.long(rows.length)} events`, `${format.count.long(views)} views`];
  if (isTruncated) parts.push("the first events only");
  return element("p", { className: "dim" }, parts.join(" \u00b7 "));
}

function timeline(rows) {
  const headings = ["Time", "After", "Event", "Content", "Position", "Properties"];
  return element(
    "div",
    { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Events of the session" },
    element(
      "table",
      { className: "timeline events" },
      element("thead", {}, element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, ...rows.map(line)),
    ),
  );
}

function line(row) {
  const position = row.position === null ? "" : format.position(row.position);
  return element(
    "tr",
    {},
    element("td", { className: "when", title: row.timestamp }, format.secondText(new Date(row.timestamp))),
    element("td", { className: "when" }, format.position(row.elapsed_seconds)),
    element("td", {}, element("span", { className: BAD.has(row.event_name) ? "tag bad" : "tag" }, row.event_name)),
    element("td", { className: "content" }, row.content),
    element("td", {}, position),
    element("td", { className: "properties" }, properties(row.properties)),
  );
}

// Return the other properties as one line; a text that is not JSON is shown as it is.
function properties(text) {
  try {
    const entries = Object.entries(JSON.parse(text)).filter(([name]) => !SHOWN.has(name));
    return entries.map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
  } catch {
    return text;
  }
}
