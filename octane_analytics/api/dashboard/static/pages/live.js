// The tile of those who watch now, fed by a live report while the page is visible.

import { sparkline } from "../charts.js";
import { element } from "../dom.js";
import * as format from "../format.js";
import { SourceMenu } from "../menu.js";
import { isLeftOut } from "../panels.js";

export const WATCHING = "concurrent_viewers";
const INTERVAL_SECONDS = 5;
const RECONNECT_SECONDS = 5;
const MAX_RECONNECT_SECONDS = 300;
const MINUTES = 30;
// Players report every some seconds: the last minutes are not complete.
const INCOMPLETE_MINUTES = 2;

export class WatchingNow {
  #value = element("span", { className: "value" }, format.ABSENT);
  #dot = element("span", { className: "live-dot off", title: "Refreshed with the page" });
  #spark = sparkline([]);
  #stream = null;
  #question = "";
  #asked = null;
  #timer = 0;
  #failures = 0;
  #onVisibility = () => (document.visibilityState === "visible" ? this.#connect() : this.#disconnect());

  constructor(context) {
    this.context = context;
    this.menu = new SourceMenu(context, "Watching now");
    this.element = element(
      "div",
      { className: "card" },
      element("span", { className: "label" }, this.#dot, "Watching now"),
      this.#value,
      element("span", { className: "change" }),
      this.#spark,
      this.menu.element,
    );
    document.addEventListener("visibilitychange", this.#onVisibility);
  }

  // Ask once, and follow from then on.
  async update(state) {
    this.element.hidden = isLeftOut(this.context, WATCHING, state);
    const params = { app_id: this.context.app(state), from: `-${MINUTES}m`, bucket_seconds: 60 };
    const filters = this.context.filters(WATCHING, state);
    this.menu.fill(WATCHING, params, filters);
    const question = JSON.stringify([params, filters, this.element.hidden]);
    if (question !== this.#question) {
      this.#disconnect();
      this.#question = question;
      this.#asked = this.element.hidden ? null : { params, filters };
    }
    if (this.#stream || !this.#asked) return;
    const answer = await this.context.client.report(WATCHING, params, filters);
    if (question !== this.#question) return;
    this.#show(answer);
    this.#connect();
  }

  close() {
    document.removeEventListener("visibilitychange", this.#onVisibility);
    this.#asked = null;
    this.#disconnect();
  }

  #disconnect() {
    clearTimeout(this.#timer);
    this.#stream?.abort();
    this.#stream = null;
    this.#setLive(false);
  }

  async #connect() {
    clearTimeout(this.#timer);
    if (this.#stream || !this.#asked || this.context.client.isCrowded) return;
    const stream = new AbortController();
    this.#stream = stream;
    const { params, filters } = this.#asked;
    const onReport = (answer) => {
      if (this.#stream !== stream) return;
      this.#failures = 0;
      this.#setLive(true);
      this.#show(answer);
      if (this.context.client.isCrowded) this.#disconnect();
    };
    try {
      await this.context.client.live(WATCHING, params, filters, INTERVAL_SECONDS, { signal: stream.signal, onReport });
    } catch {
      this.#failures += 1; // the page's refresh shows what is wrong
    }
    if (this.#stream !== stream) return;
    this.#disconnect();
    const seconds = Math.min(RECONNECT_SECONDS * 2 ** this.#failures, MAX_RECONNECT_SECONDS);
    this.#timer = setTimeout(() => this.#connect(), seconds * 1000);
  }

  #setLive(isLive) {
    this.#dot.className = isLive ? "live-dot" : "live-dot off";
    this.#dot.title = isLive ? "Live" : "Refreshed with the page";
  }

  #show({ rows }) {
    const viewers = rows.slice(1, -INCOMPLETE_MINUTES).map((row) => row.viewers);
    this.#value.textContent = format.count.short(viewers.at(-1) ?? 0);
    this.element.title = `Viewers of the last complete minute; at most ${format.count.long(Math.max(0, ...viewers))} in half an hour`;
    const drawn = sparkline(viewers);
    this.#spark.replaceWith(drawn);
    this.#spark = drawn;
  }
}
