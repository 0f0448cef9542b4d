// Requests to the API, with the token of this tab. Addresses are relative to the page.

const TOKEN_KEY = "octane-analytics.token";
const MAX_IN_FLIGHT = 6;
const MAX_ATTEMPTS = 3;
const RETRIED = new Set([429, 503]);

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

  // `onUnauthorized` is called when the service no longer accepts the token.
  constructor(onUnauthorized) {
    this.onUnauthorized = onUnauthorized;
  }

  // Forget the answers of the previous refresh.
  renew() {
    this.#answers.clear();
  }

  // Return a report's answer. Panels that ask for the same share one request.
  report(name, params, filters = []) {
    const path = reportPath(name, params, filters);
    if (!this.#answers.has(path)) {
      const answer = this.get(path);
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

  async #acquire() {
    if (this.#inFlight >= MAX_IN_FLIGHT) await new Promise((resolve) => this.#waiting.push(resolve));
    this.#inFlight += 1;
  }

  #release() {
    this.#inFlight -= 1;
    this.#waiting.shift()?.();
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
    throw new ApiError(0, "unreachable", "The service cannot be reached. Check the connection.");
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
