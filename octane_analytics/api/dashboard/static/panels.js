// Panels: a title, a body that an answer fills, and a menu with the requests that it came from.

import { curl, reportPath } from "./client.js";
import { element, prose, replaceKeepingFocus } from "./dom.js";
import { SERIES } from "./metrics.js";
import { ranges } from "./ranges.js";
import { withFilter } from "./state.js";
import { barTable } from "./tables.js";

const TOP_ROWS = 10;

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
  #menu = element("div", { className: "menu-box" });

  // `context` has the client and the templates; `isWide` spans all columns.
  constructor(context, title, { isWide = false } = {}) {
    this.context = context;
    this.heading = element("h2", {}, title);
    this.body = element("div", { className: "panel-body" }, element("p", { className: "hint" }, "Loading …"));
    this.tools = element("div", {});
    this.details = element(
      "details",
      { className: "menu", hidden: true },
      element("summary", { title: "Report, CSV and curl" }, menuIcon(title)),
      this.#menu,
    );
    this.element = element(
      "section",
      { className: isWide ? "panel wide" : "panel", "aria-label": title },
      element("div", { className: "panel-head" }, this.heading, this.tools, this.details),
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

  // Fill the menu: what the numbers mean and how to ask for them elsewhere.
  source(name, params, filters = []) {
    const template = this.context.templates.get(name);
    const path = reportPath(name, params, filters);
    const copied = element("span", { role: "status", className: "dim" });
    const copy = element("button", { className: "button", type: "button" }, "Copy curl");
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(curl(path));
        copied.textContent = "copied";
      } catch {
        copied.textContent = "select and copy the text above";
      }
    });
    const download = element("button", { className: "button", type: "button" }, "CSV");
    download.addEventListener("click", async () => {
      try {
        const answer = await this.context.client.fetch(reportPath(name, params, filters, { format: "csv" }));
        saveAs(await answer.blob(), `${name}.csv`);
        copied.textContent = "saved";
      } catch (error) {
        copied.textContent = error.message;
      }
    });
    this.#menu.replaceChildren(
      element("p", {}, element("b", {}, template.title), ". ", ...prose(template.description)),
      element("pre", {}, curl(path)),
      element(
        "div",
        { className: "menu-actions" },
        download,
        copy,
        element("a", { href: `docs#${encodeURIComponent(name)}` }, "All columns"),
        copied,
      ),
    );
    this.details.hidden = false;
  }
}

// A panel with a table of a report's first rows.
export function tablePanel(context, title, { report, params = {}, rows = (all) => all, table, none }) {
  if (!context.templates.has(report)) return null;
  const panel = new Panel(context, title);
  return {
    panel,
    update(state, options) {
      const asked = { app_id: context.app(state), ...ranges(state).current, limit: TOP_ROWS, ...(typeof params === "function" ? params(state) : params) };
      panel.source(report, asked, context.filters(report, state));
      return panel.show(
        () => (isLeftOut(context, report, state) ? null : context.client.report(report, asked, context.filters(report, state))),
        (answer) => {
          if (answer === null) return notFiltered();
          const shown = rows(answer.rows);
          return shown.length ? barTable({ rows: shown, caption: title, ...table(state) }) : empty(none);
        },
        options,
      );
    },
  };
}

// Whether filters are set that the report does not take: its numbers would be of other events.
export function isLeftOut(context, report, state) {
  return state.filters.length > 0 && !context.canFilter(report);
}

export function notFiltered() {
  return empty("This report takes no filters. Remove them to see it.");
}

// Return the action of a row that filters the page by a property's value.
export function filterAction(context, state, property, row, key) {
  if (row[key] === "" || !context.canFilter(SERIES.playback)) return null;
  return {
    label: `Show only ${property} = ${row[key]}`,
    onClick: () => context.go(withFilter(state, property, String(row[key]))),
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

function menuIcon(title) {
  return element("span", {}, element("span", { "aria-hidden": "true" }, "⋯"), hiddenText(`Source of ${title}`));
}

export function hiddenText(text) {
  return element("span", { className: "hidden-text" }, text);
}

function saveAs(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Close an open menu by Escape or a click elsewhere.
export function closeMenus(event) {
  for (const open of document.querySelectorAll("details.menu[open]")) {
    if (event.type === "keydown" && event.key === "Escape") {
      open.open = false;
      open.querySelector("summary").focus();
    } else if (event.type === "click" && !open.contains(event.target)) open.open = false;
  }
}
