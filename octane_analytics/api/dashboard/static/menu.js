// The menu of a number: the report that it came from, the command that asks for the same, and its CSV.

import { curl, reportPath } from "./client.js";
import { element, hiddenText, prose } from "./dom.js";

export class SourceMenu {
  #box = element("div", { className: "menu-box" });

  constructor(context, title) {
    this.context = context;
    const icon = element("span", {}, element("span", { "aria-hidden": "true" }, "⋯"), hiddenText(`Source of ${title}`));
    this.element = element(
      "details",
      { className: "menu", hidden: true },
      element("summary", { title: "Report, CSV and curl" }, icon),
      this.#box,
    );
  }

  // Fill the menu. `note` says more about the answer.
  fill(name, params, filters = [], note = "") {
    const template = this.context.templates.get(name);
    const path = reportPath(name, params, filters);
    const said = element("span", { role: "status", className: "dim" });
    this.#box.replaceChildren(
      element("p", {}, element("b", {}, template.title), ". ", ...prose(template.description)),
      note ? element("p", {}, ...prose(note)) : "",
      element("pre", {}, curl(path)),
      element(
        "div",
        { className: "menu-actions" },
        // Totals are part of JSON only.
        this.#download(name, reportPath(name, { ...params, totals: "" }, filters, { format: "csv" }), said),
        copyButton(curl(path), said),
        element("a", { href: `docs#${encodeURIComponent(name)}` }, "All columns"),
        said,
      ),
    );
    this.element.hidden = false;
  }

  #download(name, path, said) {
    const download = element("button", { className: "button", type: "button" }, "CSV");
    download.addEventListener("click", async () => {
      try {
        const answer = await this.context.client.fetch(path);
        saveAs(await answer.blob(), `${name}.csv`);
        said.textContent = "saved";
      } catch (error) {
        said.textContent = error.message;
      }
    });
    return download;
  }
}

function copyButton(text, said) {
  const copy = element("button", { className: "button", type: "button" }, "Copy curl");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "copied";
    } catch {
      said.textContent = "select and copy the text above";
    }
  });
  return copy;
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
