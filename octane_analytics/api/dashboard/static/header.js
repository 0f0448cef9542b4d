// The bar at the top: views, app, range, comparison.

import { element } from "./dom.js";
import { dayInput } from "./ranges.js";
import { RANGES, withView } from "./state.js";

const VIEW_LABELS = { overview: "Overview", content: "Content", search: "Search", quality: "Quality", session: "Sessions" };
const RANGE_LABELS = {
  today: "Today",
  "24h": "Last 24 hours",
  "7d": "Last 7 days",
  "30d": "Last 30 days",
  "90d": "Last 90 days",
  custom: "Other days …",
};

// `context`: {state, go, link, caller, views, hasToken, signOut}.
export class Header {
  #apps = [];
  #nav = element("ul", {});
  #app = element("select", { "aria-label": "App" });
  #range = element("select", { "aria-label": "Range" }, ...RANGES.map((value) => option(value, RANGE_LABELS[value])));
  #from = element("input", { type: "date", "aria-label": "First day" });
  #to = element("input", { type: "date", "aria-label": "Last day" });
  #days = element("span", { className: "controls", hidden: true }, this.#from, "to", this.#to);
  #compare = element("input", { type: "checkbox" });

  constructor(context) {
    this.context = context;
    const { caller } = context;
    const fixedApp = caller.parameters.app_id;
    const signOut = element("button", { className: "button", type: "button" }, "Sign out");
    signOut.addEventListener("click", context.signOut);
    this.#app.addEventListener("change", () => this.#go({ app: this.#app.value }));
    this.#range.addEventListener("change", () => this.#chooseRange());
    this.#compare.addEventListener("change", () => this.#go({ compare: this.#compare.checked }));
    for (const input of [this.#from, this.#to]) input.addEventListener("change", () => this.#chooseDays());
    this.element = element(
      "div",
      { className: "bar-row" },
      element("a", { className: "brand", href: "dashboard" }, element("img", { src: "dashboard/icon.svg", alt: "" }), "octane-analytics"),
      element("nav", { "aria-label": "Views" }, this.#nav),
      element(
        "div",
        { className: "controls" },
        fixedApp === undefined ? this.#app : element("b", { title: "The token is bound to this app" }, String(fixedApp)),
        this.#range,
        this.#days,
        element("label", { className: "check" }, this.#compare, "Compare"),
        context.hasToken ? signOut : null,
      ),
    );
  }

  // Show the state in the controls.
  show(state) {
    const known = this.#apps.includes(state.app) || state.app === "" ? this.#apps : [state.app, ...this.#apps];
    this.#app.replaceChildren(option("", "All apps"), ...known.map((app) => option(app, app)));
    this.#app.value = state.app;
    this.#range.value = state.range;
    this.#compare.checked = state.compare;
    this.#days.hidden = state.range !== "custom";
    if (state.range === "custom") [this.#from.value, this.#to.value] = [state.from, state.to];
    this.#nav.replaceChildren(
      ...this.context.views.map((view) => {
        const link = element("a", { href: this.context.link(withView(state, view)) }, VIEW_LABELS[view]);
        if (view === state.view) link.setAttribute("aria-current", "page");
        return element("li", {}, link);
      }),
      ...(this.context.caller.scopes.includes("metrics") ? [element("li", {}, element("a", { href: "status" }, "Status"))] : []),
    );
  }

  setApps(apps, state) {
    this.#apps = apps;
    this.show(state);
  }

  #go(change) {
    this.context.go({ ...this.context.state(), ...change });
  }

  #chooseRange() {
    if (this.#range.value !== "custom") return this.#go({ range: this.#range.value });
    const today = new Date();
    const weekAgo = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 6);
    return this.#go({ range: "custom", from: dayInput(weekAgo), to: dayInput(today) });
  }

  #chooseDays() {
    const [from, to] = [this.#from.value, this.#to.value].sort();
    if (from && to) this.#go({ range: "custom", from, to });
  }
}

function option(value, text) {
  return element("option", { value }, text);
}
