// The page of /docs, built from GET /reports. Text is set as text only, never as HTML.
"use strict";

const FORMATS = ["json", "ndjson", "csv", "prometheus", "arrow", "parquet"];
const SHOWN_ROWS = 500;
let templates = [];

const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in created) created[name] = value;
    else created.setAttribute(name, value);
  }
  created.append(...children);
  return created;
}

// Convert text with `code` into nodes.
function prose(text) {
  return text.split("`").map((part, i) => (i % 2 ? element("code", {}, part) : part));
}

function headers() {
  const token = $("token").value.trim();
  return token ? { Authorization: `Bearer ${token}` } : {};
}

// Return the error of a response as one line.
async function errorText(answer) {
  const text = await answer.text();
  try {
    const { error } = JSON.parse(text);
    return `${answer.status} ${error.code}: ${error.message}`;
  } catch {
    return `${answer.status} ${text.slice(0, 300)}`;
  }
}

async function load() {
  try {
    const answer = await fetch("reports", { headers: headers() });
    if (!answer.ok) throw new Error(await errorText(answer));
    ({ templates } = await answer.json());
  } catch (error) {
    $("main").replaceChildren(
      element("p", { className: "error", role: "alert" }, `Reports could not be listed: ${error.message}`),
    );
    return;
  }
  $("reports").replaceChildren(
    ...templates.map((template) =>
      element("li", {}, element("a", { href: `#${template.name}` }, template.title, element("small", {}, template.name))),
    ),
  );
  show();
}

function show() {
  const name = decodeURIComponent(location.hash.slice(1));
  const template = templates.find((each) => each.name === name) ?? templates[0];
  if (!template) return;
  for (const link of $("reports").querySelectorAll("a")) {
    if (link.getAttribute("href") === `#${template.name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const result = element("section", { id: "result", "aria-live": "polite" });
  $("main").replaceChildren(
    element("h2", {}, template.title, element("code", {}, template.name)),
    element("p", {}, ...prose(template.description)),
    element("p", { className: "dim" }, limits(template)),
    form(template, result),
    result,
    element("h3", {}, "Columns"),
    element(
      "dl",
      {},
      ...Object.entries(template.columns).flatMap(([column, text]) => [
        element("dt", {}, column),
        element("dd", {}, ...prose(text)),
      ]),
    ),
  );
}

function limits(template) {
  const cached = template.cache_seconds
    ? `Answers are cached for ${template.cache_seconds} s.`
    : "Answers are not cached.";
  return template.row_limit ? `${cached} At most ${template.row_limit.toLocaleString()} rows.` : cached;
}

function types(schema) {
  const listed = schema.anyOf ? ["time"] : [schema.type].flat();
  return listed.filter((type) => type && type !== "null");
}

function field(name, schema, isRequired) {
  const properties = { name, required: isRequired };
  const shown = schema.default ?? "";
  let input;
  if (schema.enum) {
    const values = schema.enum.filter((value) => value !== null).map(String);
    if (schema.default === undefined) values.unshift("");
    input = element("select", properties, ...values.map((value) => element("option", { value }, value)));
    input.value = String(shown);
  } else if (schema.type && types(schema).includes("array")) {
    input = element("textarea", { ...properties, rows: 3, placeholder: "one per line" });
    input.value = [shown].flat().join("\n");
  } else {
    const example = schema.examples?.map(String).join(" or ");
    input = element("input", { ...properties, placeholder: String(shown) || example || "" });
    input.inputMode = types(schema).includes("integer") && !schema.anyOf ? "numeric" : "text";
  }
  const bounds =
    schema.minimum !== undefined && schema.maximum !== undefined ? ` ${schema.minimum} to ${schema.maximum}.` : "";
  return element(
    "label",
    {},
    element("b", {}, name),
    ` ${types(schema).join(", ")}${isRequired ? ", required" : ""}`,
    input,
    element("small", {}, ...prose((schema.description ?? "") + bounds)),
  );
}

function form(template, result) {
  const { properties, required = [] } = template.parameters;
  const button = element("button", { type: "submit" }, "Run");
  const summary = element("span", { className: "dim" });
  const fields = Object.entries(properties).map(([name, schema]) => field(name, schema, required.includes(name)));
  const formats = field("format", { enum: FORMATS, default: "json", description: "json is shown as a table." }, false);
  const created = element("form", {}, ...fields, formats, element("div", { className: "run" }, button, summary));
  created.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    summary.textContent = "running …";
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(created)) {
      const isArray = properties[name] && types(properties[name]).includes("array");
      for (const one of isArray ? value.split("\n") : [value]) {
        if (one.trim() && !(name === "format" && one === "json")) query.append(name, one.trim());
      }
    }
    const path = `report/${template.name}${query.size ? `?${query}` : ""}`;
    try {
      summary.textContent = await run(path, query.get("format") ?? "json", template, result);
    } catch (error) {
      summary.textContent = "";
      result.replaceChildren(element("p", { className: "error", role: "alert" }, error.message));
    } finally {
      button.disabled = false;
    }
  });
  return created;
}

// Run a request, show its result and return a short summary.
async function run(path, format, template, result) {
  const url = new URL(path, location.href);
  const started = performance.now();
  const answer = await fetch(url, { headers: headers() });
  if (!answer.ok) throw new Error(await errorText(answer));
  const summary = [answer.headers.get("X-Cache"), `${Math.round(performance.now() - started)} ms`];
  const curl = element("pre", {}, `curl '${url.href.replaceAll("'", "%27")}'`);
  if (format === "json") {
    const body = await answer.json();
    summary.unshift(`${body.row_count.toLocaleString()} rows${body.truncated ? ", truncated" : ""}`);
    const rowsNote = body.row_count > SHOWN_ROWS ? `Only the first ${SHOWN_ROWS} rows are shown.` : "";
    result.replaceChildren(
      element("h3", {}, "Answer"),
      actions(url, template),
      (await chart(body)) ?? "",
      table(body, template),
      element("p", { className: "dim" }, rowsNote),
      curl,
    );
  } else if (format === "arrow" || format === "parquet") {
    const bytes = await answer.blob();
    const link = element("a", { href: URL.createObjectURL(bytes), download: `${template.name}.${format}` });
    link.textContent = `${template.name}.${format} (${bytes.size.toLocaleString()} bytes)`;
    result.replaceChildren(element("h3", {}, "Answer"), element("p", {}, link), curl);
  } else {
    const text = await answer.text();
    result.replaceChildren(element("h3", {}, "Answer"), element("pre", {}, text.slice(0, 100_000)), curl);
  }
  return summary.filter(Boolean).join(" · ");
}

// Buttons for the link of this answer and for its CSV.
function actions(url, template) {
  const said = element("span", { className: "dim", role: "status" });
  const copy = element("button", { type: "button" }, "Copy link");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(url.href);
      said.textContent = "copied";
    } catch {
      said.textContent = url.href;
    }
  });
  const csv = element("button", { type: "button" }, "CSV");
  csv.addEventListener("click", async () => {
    const asCsv = new URL(url);
    asCsv.searchParams.set("format", "csv");
    const answer = await fetch(asCsv, { headers: headers() });
    if (!answer.ok) {
      said.textContent = await errorText(answer);
      return;
    }
    const link = element("a", { href: URL.createObjectURL(await answer.blob()), download: `${template.name}.csv` });
    link.click();
    said.textContent = "saved";
  });
  return element("div", { className: "run" }, copy, csv, said);
}

// Return a chart of one numeric column if the rows are a series over time, otherwise null.
async function chart(body) {
  const [first, ...others] = body.columns;
  const times = body.rows.map((row) => new Date(row[first.name]));
  const isSeries =
    /^Date/.test(first.type) && times.length > 1 && times.every((time, i) => i === 0 || time > times[i - 1]);
  const numeric = others.filter(({ name }) => body.rows.some((row) => typeof row[name] === "number"));
  if (!isSeries || !numeric.length) return null;
  const [{ LineChart }, format] = await Promise.all([import("../dashboard/charts.js"), import("../dashboard/format.js")]);
  const drawn = new LineChart();
  const select = element("select", { className: "chart-column", "aria-label": "Column of the chart" });
  select.append(...numeric.map(({ name }) => element("option", { value: name }, name)));
  const draw = () =>
    drawn.draw({
      label: select.value,
      format: format.number,
      bucket: (times[1] - times[0]) / 1000,
      points: body.rows.map((row, i) => ({ time: times[i], value: row[select.value] })),
      before: null,
      isOpen: false,
    });
  select.addEventListener("change", draw);
  requestAnimationFrame(draw);
  return element("div", {}, select, drawn.element);
}

function table(body, template) {
  const names = body.columns.map((column) => column.name);
  const head = body.columns.map((column) =>
    element("th", { title: template.columns[column.name] ?? "" }, column.name, element("small", {}, column.type)),
  );
  const rows = body.rows.slice(0, SHOWN_ROWS).map((row) => element("tr", {}, ...names.map((name) => cell(row[name]))));
  return element(
    "div",
    { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Rows" },
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)),
  );
}

function cell(value) {
  if (value === null) return element("td", { className: "dim" }, "–");
  if (typeof value === "number") return element("td", { className: "number" }, value.toLocaleString());
  return element("td", {}, typeof value === "object" ? JSON.stringify(value) : String(value));
}

addEventListener("hashchange", show);
$("token").addEventListener("change", load);
load();
