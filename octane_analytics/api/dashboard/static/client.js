// Requests to the API, with the token of this tab. Addresses are relative to the page.

const TOKEN_KEY = "octane-analytics.token";
// Browsers open six connections to a host, of which the live report has one.
const MAX_IN_FLIGHT = 5;
const MAX_ATTEMPTS = 3;
const RETRIED = new Set([429, 503]);
// Most reports of one POST /reports.
const MAX_BATCH = 20;

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export function token() {
  return sessionStorage.getItem(TOKEN_KEY) ?? "";
}

export function setToken(text) {
  if (text) sessionStorage.setItem(TOKEN_KEY, text);
  else sessionStorage.removeItem(TOKEN_KEY);
}

export class Client {
  #inFlight = 0;
  #waiting = [];
  #answers = new Map();
  // Reports of a refresh that were not sent yet; null while each is requested by itself.
  #batch = null;
  // Whether the token's limits were met: a live report would take of them what the page needs.
  isCrowded = false;

  // `onUnauthorized` is called when the service no longer accepts the token.
  constructor(onUnauthorized) {
    this.onUnauthorized = onUnauthorized;
  }

  // Forget the answers of the previous refresh.
  renew() {
    this.#answers.clear();
  }

  // Run `ask`, whose reports are sent together: a fraction of the cost of single requests, but all are
  // answered at once, as is enough for a page that already shows numbers.
  together(ask) {
    const batch = [];
    this.#batch = batch;
    const asked = ask();
    this.#batch = null;
    while (batch.length) this.#send(batch.splice(0, MAX_BATCH));
    return asked;
  }

  // Return a report's answer. Panels that ask for the same share one request.
  report(name, params, filters = []) {
    const path = reportPath(name, params, filters);
    if (!this.#answers.has(path)) {
      const answer = this.#batch ? this.#enqueue(path, question(name, params, filters)) : this.get(path);
      this.#answers.set(path, answer);
      answer.catch(() => this.#answers.delete(path));
    }
    return this.#answers.get(path);
  }

  async get(path) {
    return (await this.fetch(path)).json();
  }

  // Return the response. A busy service, or a spent rate, is asked again after the time that it names.
  async fetch(path, options = {}) {
    const used = token();
    await this.#acquire();
    try {
      for (let attempt = 1; ; attempt += 1) {
        const answer = await send(path, options);
        if (answer.ok) return answer;
        this.isCrowded ||= answer.status === 429;
        if (RETRIED.has(answer.status) && attempt < MAX_ATTEMPTS) {
          const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 1, 10);
          await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
          continue;
        }
        const error = await errorOf(answer);
        // Requests of an earlier token may be answered after another has signed in.
        if (error.status === 401 && used === token()) this.onUnauthorized(error);
        throw error;
      }
    } finally {
      this.#release();
    }
  }

  // Call `onReport` with each answer of a live report until the service ends the stream.
  async live(name, params, filters, interval, { signal, onReport }) {
    const path = reportPath(name, params, filters, { interval }).replace(/^report\//, "live/");
    const used = token();
    const answer = await send(path, { signal, cache: "no-store" });
    if (!answer.ok) {
      const error = await errorOf(answer);
      if (error.status === 401 && used === token()) this.onUnauthorized(error);
      throw error;
    }
    for await (const { event, data } of serverSentEvents(answer.body)) {
      if (event === "report") onReport(JSON.parse(data));
    }
  }

  #enqueue(path, body) {
    return new Promise((resolve, reject) => this.#batch.push({ path, body, resolve, reject }));
  }

  async #send(batch) {
    const options = {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ reports: batch.map(({ body }) => body) }),
    };
    try {
      const { answers } = await (await this.fetch("reports", options)).json();
      // A report that failed, or whose answer is too large for a batch, is requested by itself.
      batch.forEach(({ path, resolve }, i) => resolve(answers[i].status === 200 ? answers[i].answer : this.get(path)));
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  async #acquire() {
    if (this.#inFlight >= MAX_IN_FLIGHT) await new Promise((resolve) => this.#waiting.push(resolve));
    this.#inFlight += 1;
  }

  #release() {
    this.#inFlight -= 1;
    this.#waiting.shift()?.();
  }
}

// Yield {event, data} of a stream. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const field = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
      if (field("data").length) yield { event: field("event")[0] ?? "message", data: field("data").join("\n") };
    }
  }
}

async function send(path, options) {
  const authorization = token() ? { Authorization: `Bearer ${token()}` } : {};
  const headers = { ...options.headers, ...authorization };
  try {
    // Revalidated, so that a revoked token is noticed; the service answers 304 from its own cache.
    return await fetch(path, { cache: "no-cache", ...options, headers, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The service cannot be reached.");
  }
}

async function errorOf(answer) {
  const text = await answer.text();
  try {
    const { error } = JSON.parse(text);
    return new ApiError(answer.status, error.code, error.message);
  } catch {
    return new ApiError(answer.status, "unknown", text.slice(0, 300) || answer.statusText);
  }
}

// Return a report as an item of POST /reports; absent parameters are left out.
function question(name, { compare, totals, ...params }, filters) {
  const given = Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const [from, to] = (compare ?? "").split("/");
  const compared = to === undefined ? compare : { from, to };
  const options = { ...(compare ? { compare: compared } : {}), ...(totals ? { totals: true } : {}) };
  return { template: name, params: Object.fromEntries(given), filters, ...options };
}

export function reportPath(name, params, filters = [], options = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...params, ...options })) {
    if (value === "" || value === null || value === undefined) continue;
    for (const one of [value].flat()) query.append(key, one);
  }
  for (const { property, op, value } of filters) query.append("filter", `${property}:${op}:${value}`);
  return `report/${encodeURIComponent(name)}${query.size ? `?${query}` : ""}`;
}

// Return the command that asks for the same; the token is never part of it.
export function curl(path) {
  const address = new URL(path, document.baseURI).href.replaceAll("'", "%27");
  const header = token() ? ` -H "Authorization: Bearer $TOKEN"` : "";
  return `curl '${address}'${header}`;
}
