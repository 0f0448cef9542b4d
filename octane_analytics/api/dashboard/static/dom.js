// Creation of elements. Text is set as text only, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

// Return an element. Properties of the element are set as such, other names as attributes; null is skipped.
export function element(tag, properties = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name in created) created[name] = value;
    else created.setAttribute(name, value);
  }
  created.append(...children.filter((child) => child !== null && child !== undefined));
  return created;
}

export function svg(tag, attributes = {}, ...children) {
  const created = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  created.append(...children);
  return created;
}

export function byId(id) {
  return document.getElementById(id);
}

// Convert text with `code` into nodes.
export function prose(text) {
  return text.split("`").map((part, i) => (i % 2 ? element("code", {}, part) : part));
}

// Replace the children, and give the focus back to the control with the same data-key.
export function replaceKeepingFocus(parent, ...children) {
  const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  if (key === undefined) return;
  for (const candidate of parent.querySelectorAll("[data-key]")) {
    if (candidate.dataset.key === key) return candidate.focus({ preventScroll: true });
  }
}

// Return text for screen readers only.
export function hiddenText(text) {
  return element("span", { className: "hidden-text" }, text);
}
