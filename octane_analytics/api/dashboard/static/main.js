// Start of the dashboard: sign-in, the address, the views and their refresh.

import { Client, setToken, token } from "./client.js";
import { byId, element } from "./dom.js";
import { timeText } from "./format.js";
import { Header } from "./header.js";
import { closeMenus } from "./menu.js";
import { failure, qualityTotals } from "./panels.js";
import { parse, serialize, VIEWS, withoutFilter } from "./state.js";
import { signInForm } from "./signin.js";

const REFRESH_SECONDS = 30;
const RESTART_SECONDS = 5;
const LOADERS = {
  overview: () => import("./pages/overview.js"),
  content: () => import("./pages/content.js"),
  search: () => import("./pages/search.js"),
  quality: () => import("./pages/quality.js"),
  session: () => import("./pages/session.js"),
};

class Dashboard {
  #caller = null;
  #header = null;
  #page = null;
  #state = parse(location.search);
  #title = element("div", { className: "title-row" });
  #updated = element("span", { className: "updated" });
  #lastSuccess = null;
  #failures = 0;
  #isUpdating = false;
  #timer = 0;
  #modules = {};

  constructor() {
    this.client = new Client((error) => this.signOut(error.message));
    this.templates = new Map();
  }

  async start() {
    clearTimeout(this.#timer);
    this.client.renew();
    try {
      this.#caller = await this.client.get("caller");
      const loaded = Promise.all(VIEWS.map((view) => LOADERS[view]()));
      const [{ templates }, modules] = await Promise.all([this.client.get("reports"), loaded]);
      this.templates = new Map(templates.map((template) => [template.name, template]));
      VIEWS.forEach((view, i) => (this.#modules[view] = modules[i]));
    } catch (error) {
      if (error.status !== 401) this.#showFailure(error);
      return;
    }
    this.#header = new Header({
      caller: this.#caller,
      views: VIEWS.filter((view) => this.#modules[view].isAvailable(this)),
      hasToken: token() !== "",
      state: () => this.#state,
      go: (state) => this.go(state),
      link: (state) => this.link(state),
      signOut: () => this.signOut(""),
    });
    byId("header").replaceChildren(this.#header.element);
    await this.#show();
    // Afterwards, since the numbers are what the page is for.
    if (this.#caller && this.#caller.parameters.app_id === undefined) this.#listApps();
  }

  // Show a state, as a new entry of the history.
  go(state) {
    history.pushState(null, "", this.link(state));
    this.#state = state;
    this.#show();
  }

  // What the address says; a page may ask a report for a part of it.
  get state() {
    return this.#state;
  }

  link(state) {
    return `dashboard${serialize(state)}`;
  }

  back() {
    this.#state = parse(location.search);
    if (this.#caller) this.#show();
  }

  // The parameters that all reports share.
  app(state) {
    return this.#caller.parameters.app_id ?? state.app;
  }

  // The filters that a report takes; it is asked without the others.
  filters(name, state) {
    return this.canFilter(name) ? state.filters : [];
  }

  canFilter(name) {
    return Boolean(this.templates.get(name)?.filters);
  }

  signOut(reason) {
    clearTimeout(this.#timer);
    this.#page?.close?.();
    setToken("");
    this.#caller = this.#page = null;
    this.#isUpdating = false;
    byId("header").replaceChildren();
    byId("notice").hidden = true;
    document.title = "Sign in · octane-analytics";
    byId("main").replaceChildren(
      signInForm(reason, (text) => {
        setToken(text);
        this.start();
      }),
    );
  }

  refresh() {
    if (this.#page && !this.#isUpdating && document.visibilityState === "visible") this.#update(false);
  }

  #show() {
    const state = this.#state;
    const { Page } = this.#modules[state.view];
    const isSamePage = this.#page instanceof Page;
    if (!isSamePage) {
      this.#page?.close?.();
      this.#page = new Page(this);
      byId("main").replaceChildren(this.#title, this.#page.element);
    }
    const heading = this.#page.title(state);
    document.title = `${heading} · octane-analytics`;
    this.#title.replaceChildren(
      element("h1", {}, heading),
      element("div", { className: "chips" }, ...state.filters.map((each) => this.#chip(each))),
      this.#updated,
    );
    this.#header.show({ ...state, app: this.app(state) });
    this.client.renew();
    return this.#update(true);
  }

  async #update(isChange) {
    clearTimeout(this.#timer);
    const page = this.#page;
    if (!isChange) this.client.renew();
    let failed = null;
    this.#isUpdating = true;
    try {
      const update = () => page.update(this.#state, { isChange });
      await (isChange ? update() : this.client.together(update));
    } catch (error) {
      failed = error;
    }
    if (page !== this.#page) return;
    this.#isUpdating = false;
    this.#report(failed, isChange);
    clearTimeout(this.#timer);
    const seconds = REFRESH_SECONDS * Math.min(2 ** this.#failures, 8);
    this.#timer = setTimeout(() => this.refresh(), seconds * 1000);
  }

  // Show when the numbers were read and, after a failed refresh, why they are older.
  #report(error, isChange) {
    const notice = byId("notice");
    if (error === null) {
      this.#failures = 0;
      this.#lastSuccess = new Date();
      this.#updated.textContent = `Updated ${timeText(this.#lastSuccess)}`;
      notice.hidden = true;
      return;
    }
    this.#failures += 1;
    if (isChange || !this.#lastSuccess) return; // the panels show the error
    notice.textContent = `Not updated since ${timeText(this.#lastSuccess)}: ${error.message} The page tries again.`;
    notice.hidden = false;
  }

  #chip({ property, value }) {
    const remove = element("button", { type: "button", "aria-label": `Remove the filter ${property} = ${value}` }, "×");
    remove.addEventListener("click", () => this.go(withoutFilter(this.#state, property)));
    return element("span", { className: "chip" }, `${property} = ${value}`, remove);
  }

  #showFailure(error) {
    const again = element("button", { className: "button primary", type: "button" }, "Try again");
    again.addEventListener("click", () => this.start());
    byId("main").replaceChildren(element("div", { className: "panel signin" }, failure(error), again));
    this.#timer = setTimeout(() => this.start(), RESTART_SECONDS * 1000);
  }

  async #listApps() {
    const { report, params } = qualityTotals("app_id");
    if (!this.templates.has(report)) return;
    try {
      const answer = await this.client.report(report, { ...params, from: "-7d", limit: 1000 });
      this.#header.setApps(answer.rows.map((row) => row.value).sort(), this.#state);
    } catch {
      // The picker keeps "All apps"; the panels show what is wrong.
    }
  }
}

const dashboard = new Dashboard();

addEventListener("popstate", () => dashboard.back());
addEventListener("keydown", closeMenus);
addEventListener("click", closeMenus);
document.addEventListener("visibilitychange", () => dashboard.refresh());

// Links to other states of the dashboard do not load the page again.
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (!link || !isPlain || event.defaultPrevented || link.pathname !== location.pathname || link.hash) return;
  event.preventDefault();
  dashboard.go(parse(link.search));
});

dashboard.start();
