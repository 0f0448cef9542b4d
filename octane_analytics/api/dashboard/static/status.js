// The operators' page: processes, lag, inserts, dead letters, outages and versions.

import { Client, setToken } from "./client.js";
import { byId, element, replaceKeepingFocus } from "./dom.js";
import * as format from "./format.js";
import { empty, failure } from "./panels.js";
import { signInForm } from "./signin.js";
import { barTable } from "./tables.js";

const REFRESH_SECONDS = 5;

const client = new Client((error) => signOut(error.message));
let lastSuccess = null;
let timer = 0;

// The samples of one refresh.
class Metrics {
  #byName = new Map();

  constructor(samples) {
    for (const sample of samples) {
      if (!this.#byName.has(sample.name)) this.#byName.set(sample.name, []);
      this.#byName.get(sample.name).push(sample);
    }
  }

  all(name) {
    return this.#byName.get(name) ?? [];
  }

  // Return the sum of a metric's samples; null if it is not there.
  sum(name) {
    const found = this.all(name);
    return found.length ? found.reduce((total, { value }) => total + value, 0) : null;
  }

  // Return rows of {key, value}, summed by a label, without zeros.
  rows(name, label) {
    const sums = new Map();
    for (const { labels, value } of this.all(name)) sums.set(labels[label], (sums.get(labels[label]) ?? 0) + value);
    return [...sums]
      .filter(([, value]) => value > 0)
      .map(([key, value]) => ({ key, value }))
      .sort((one, other) => other.value - one.value);
  }
}

async function update() {
  clearTimeout(timer);
  const notice = byId("notice");
  try {
    const state = await client.get("status/data");
    show(state);
    lastSuccess = new Date();
    notice.hidden = true;
  } catch (error) {
    if (error.status === 401) return;
    if (lastSuccess === null) byId("main").replaceChildren(element("div", { className: "panel signin" }, failure(error)));
    else {
      notice.textContent = `Not updated since ${format.timeText(lastSuccess)}: ${error.message} The page tries again.`;
      notice.hidden = false;
    }
  }
  timer = setTimeout(() => (document.visibilityState === "visible" ? update() : null), REFRESH_SECONDS * 1000);
}

function show({ supervisor, has_lag: hasLag, metrics: samples, conditions }) {
  const metrics = new Metrics(samples);
  const updated = element("span", { className: "updated" }, `Updated ${format.timeText(new Date())}`);
  replaceKeepingFocus(
    byId("main"),
    element("div", { className: "title-row" }, element("h1", {}, "Status"), health(supervisor, conditions), updated),
    problems([...(supervisor?.problems ?? []), ...conditions]),
    element("section", { className: "cards brief", "aria-label": "Key numbers" }, ...cards(supervisor, metrics)),
    slots(supervisor),
    element(
      "div",
      { className: "panels loose" },
      panel("Lag by partition", hasLag ? lag(metrics) : empty("The metrics process does not answer: start `octane-analytics worker` on this machine, or set METRICS_HOST and METRICS_PORT.")),
      counts(metrics, "Dead letters by reason", "analytics_events_rejected_total", "reason", "Reason", "No invalid record since the start."),
      counts(metrics, "Failed calls of ClickHouse", "analytics_clickhouse_errors_total", "class", "Class", "None since the start."),
      outages(metrics),
      counts(metrics, "Unexpected ends of processes", "analytics_process_restarts_total", "cause", "Cause", "None since the start."),
      counts(metrics, "API requests", "analytics_api_requests_total", "route", "Route", "None yet."),
      counts(metrics, "Versions", "analytics_build_info", "version", "Version", "Unknown."),
    ),
  );
}

function health(supervisor, conditions) {
  if (!supervisor) return element("span", { className: "tag" }, "no supervisor on this machine answers");
  return supervisor.is_healthy && !conditions.length
    ? element("span", { className: "tag" }, `healthy, ${supervisor.state}`)
    : element("span", { className: "tag bad" }, `not healthy, ${supervisor.state}`);
}

// The reasons, in the words of `octane-analytics status`, and the section of the manual that says what to do.
function problems(found) {
  if (!found.length) return null;
  const lines = found.map(({ text, page, section }) =>
    element(
      "li",
      {},
      `${text}; see `,
      element("a", { href: `dashboard/manual/${encodeURIComponent(page)}.md#:~:text=${encodeURIComponent(`### ${section}`)}` }, section),
      " in ",
      element("code", {}, `octane-analytics manual ${page}`),
    ),
  );
  return element(
    "section",
    { className: "panel failure problems", "aria-label": "Not healthy" },
    element("h2", {}, "Not healthy"),
    element("ul", {}, ...lines),
  );
}

function cards(supervisor, metrics) {
  const workers = supervisor?.slots.filter((slot) => slot.is_worker) ?? [];
  const running = workers.filter((slot) => slot.state === "running").length;
  const lagNow = supervisor?.lag ?? metrics.sum("analytics_lag_messages");
  return [
    ["Workers up", supervisor ? `${running} of ${workers.length}` : format.ABSENT],
    ["Events per second", format.count.short(supervisor?.events_per_second)],
    ["Lag (messages)", format.count.long(lagNow)],
    ["Events inserted", format.count.long(metrics.sum("analytics_events_inserted_total"))],
    ["Dead letters", format.count.long(metrics.sum("analytics_dead_letters_total"))],
    ["Waiting for a dependency", format.count.long(metrics.sum("analytics_outage"))],
  ].map(([label, value]) =>
    element("div", { className: "card" }, element("span", { className: "label" }, label), element("span", { className: "value" }, value)),
  );
}

function slots(supervisor) {
  if (!supervisor) {
    return panel("Processes", empty("Start `octane-analytics worker` on this machine with the same PROMETHEUS_MULTIPROC_DIR, or set CONTROL_SOCKET."), true);
  }
  const headings = ["Slot", "State", "PID", "Up", "Restarts", "Partitions", "Events/s", "Lag", "Last flush", "Memory", "Last error"];
  const ago = (seconds) => (seconds === null ? format.ABSENT : `${format.duration.short(seconds)} ago`);
  const rows = supervisor.slots.map((slot) => [
    slot.slot,
    slot.is_waiting ? "waiting" : slot.state,
    slot.pid ?? format.ABSENT,
    format.duration.short(slot.uptime_seconds),
    slot.restarts,
    slot.is_worker ? slot.partitions : "",
    slot.is_worker ? format.count.short(slot.events_per_second) : "",
    slot.is_worker ? format.count.long(slot.lag) : "",
    slot.is_worker ? ago(slot.last_flush_seconds) : "",
    format.megabytes.short(slot.memory_bytes),
    slot.last_error ? `${slot.last_error} (${ago(slot.last_error_seconds)})` : "",
  ]);
  return panel("Processes", plainTable("Processes", headings, rows), true);
}

function lag(metrics) {
  const seconds = new Map(metrics.all("analytics_lag_seconds").map(({ labels, value }) => [labels.partition, value]));
  const rows = metrics
    .all("analytics_lag_messages")
    .map(({ labels, value }) => ({ partition: labels.partition, messages: value, seconds: seconds.get(labels.partition) }))
    .sort((one, other) => other.messages - one.messages || Number(one.partition) - Number(other.partition));
  return barTable({
    rows,
    key: "partition",
    label: "Partition",
    caption: "Lag by partition",
    columns: [
      { name: "messages", label: "Messages", format: format.count },
      { name: "seconds", label: "Age", format: format.duration },
    ],
  });
}

function counts(metrics, title, name, label, heading, none) {
  const rows = metrics.rows(name, label);
  const columns = [{ name: "value", label: "Count", format: format.count }];
  return panel(title, rows.length ? barTable({ rows, key: "key", label: heading, caption: title, columns }) : empty(none));
}

function outages(metrics) {
  const waiting = new Map(metrics.all("analytics_outage").map(({ labels, value }) => [labels.dependency, value]));
  const rows = metrics
    .all("analytics_outage_seconds_total")
    .map(({ labels, value }) => ({ dependency: labels.dependency, seconds: value, now: waiting.get(labels.dependency) ?? 0 }))
    .filter(({ seconds, now }) => seconds > 0 || now > 0);
  const columns = [
    { name: "seconds", label: "Waited in all", format: format.duration },
    { name: "now", label: "Workers now", format: format.count },
  ];
  return panel("Outages", rows.length ? barTable({ rows, key: "dependency", label: "Dependency", caption: "Outages", columns }) : empty("None since the start."));
}

function panel(title, content, isWide = false) {
  return element(
    "section",
    { className: isWide ? "panel wide" : "panel", "aria-label": title },
    element("div", { className: "panel-head" }, element("h2", {}, title)),
    content,
  );
}

function plainTable(caption, headings, rows) {
  return element(
    "div",
    { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption },
    element(
      "table",
      { className: "timeline brief" },
      element("thead", {}, element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, String(cell)))))),
    ),
  );
}

function signOut(reason) {
  clearTimeout(timer);
  setToken("");
  lastSuccess = null;
  byId("main").replaceChildren(
    signInForm(reason, (text) => {
      setToken(text);
      update();
    }),
  );
}

document.addEventListener("visibilitychange", () => (document.visibilityState === "visible" && lastSuccess ? update() : null));
update();
