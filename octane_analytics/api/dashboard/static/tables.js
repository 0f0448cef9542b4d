// Tables: rows with bars, and plain ones.

import { element } from "./dom.js";
import { ABSENT } from "./format.js";

// Return a table whose first column has a bar. `columns`: [{name, label, format}], the first of which is
// the bar's length. `action(row)` returns {href} for a link, {onClick, label} for a button, or null.
export function barTable({ rows, key, label, columns, action = () => null, caption }) {
  const [measured] = columns;
  const length = (row) => Math.abs(Number(row[measured.name]) || 0);
  const most = Math.max(...rows.map(length), 0);
  const head = [label, ...columns.map((column) => column.label)].map((text, i) =>
    element("th", { scope: "col", className: i ? "number" : "" }, text),
  );
  const lines = rows.map((row) => {
    const cell = barCell(nameOf(row[key]), action(row));
    cell.style.setProperty("--share", `${most ? (100 * length(row)) / most : 0}%`);
    return element(
      "tr",
      {},
      element("td", { className: "bar-cell" }, cell),
      ...columns.map(({ name, format }) =>
        element("td", { className: `number ${format.tone?.(row[name]) ?? ""}`, title: format.long(row[name]) }, format.short(row[name])),
      ),
    );
  });
  return element(
    "div",
    { className: "scroll" },
    element(
      "table",
      { "aria-label": caption },
      element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...lines),
    ),
  );
}

function barCell(text, action) {
  if (!action) return element("span", { className: "bar" }, text);
  if (action.href) {
    const link = element("a", { className: "bar", href: action.href, title: action.label }, text);
    link.dataset.key = text;
    return link;
  }
  const button = element("button", { className: "bar", type: "button", title: action.label }, text);
  button.dataset.key = text;
  button.addEventListener("click", action.onClick);
  return button;
}

export function nameOf(value) {
  return value === "" || value === null || value === undefined ? "(none)" : String(value);
}

// Return a folded table with the points of a chart, for readers and screen readers.
export function pointsTable({ label, format, points, before, beforeLabel = "Previous period", name }) {
  const heading = ["", label, ...(before ? [beforeLabel] : [])];
  return element(
    "details",
    { className: "as-table" },
    element("summary", {}, "Show as a table"),
    element(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", "aria-label": `${label} as a table` },
      element(
        "table",
        {},
        element(
          "thead",
          {},
          element("tr", {}, ...heading.map((text, i) => (i ? element("th", { scope: "col", className: "number" }, text) : element("td", {}, text)))),
        ),
        element(
          "tbody",
          {},
          ...points.map((point, i) =>
            element(
              "tr",
              {},
              element("th", { scope: "row" }, name(point.time)),
              element("td", { className: "number" }, format.long(point.value)),
              before ? element("td", { className: "number" }, before[i] ? format.long(before[i].value) : ABSENT) : null,
            ),
          ),
        ),
      ),
    ),
  );
}
