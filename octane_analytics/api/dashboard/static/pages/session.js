// The session page: every event of one session or view, for support.

import { element } from "../dom.js";
import * as format from "../format.js";
import { empty, Panel } from "../panels.js";
import { ranges } from "../ranges.js";

const REPORT = "session_timeline";
const LIMIT = 1000;
const BAD = new Set(["video_error", "video_buffering"]);
// Shown in columns of their own.
const SHOWN = new Set(["event_id", "session_id", "view_id", "content_id", "stream_id", "video_id"]);

export function isAvailable(context) {
  return context.templates.has(REPORT);
}

export class Page {
  #input = element("input", { id: "session-id", type: "search", required: true, spellcheck: false, autocomplete: "off" });

  constructor(context) {
    this.context = context;
    this.panel = new Panel(context, "Timeline");
    const form = element(
      "form",
      { className: "controls lookup", role: "search" },
      element("label", { htmlFor: "session-id" }, "Session or view"),
      this.#input,
      element("button", { className: "button primary", type: "submit" }, "Show"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      context.go({ ...this.state, id: this.#input.value.trim() });
    });
    this.element = element("div", {}, form, this.panel.element);
  }

  title(state) {
    return state.id ? `Session ${state.id}` : "Sessions";
  }

  async update(state, options) {
    this.state = state;
    if (options.isChange) this.#input.value = state.id;
    if (state.id === "") {
      this.panel.details.hidden = true;
      await this.panel.show(
        async () => null,
        () => empty("Enter the session_id or view_id of a report or a complaint. The whole range is searched."),
        options,
      );
      return;
    }
    const asked = { app_id: this.context.app(state), ...ranges(state).current, id: state.id, limit: LIMIT };
    this.panel.source(REPORT, asked);
    await this.panel.show(
      () => this.context.client.report(REPORT, asked),
      ({ rows, truncated }) => {
        if (!rows.length) return empty("No event of this session or view in this range. Choose a longer range.");
        return [summary(rows, truncated), timeline(rows)];
      },
      options,
    );
  }
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
      { className: "timeline" },
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
    element("td", {}, row.content),
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
