// What is shown, as the query of the address: copyable, and the back button works.

export const VIEWS = ["overview", "content", "search", "quality", "session"];
export const RANGES = ["today", "24h", "7d", "30d", "90d", "custom"];
const DEFAULTS = {
  view: "overview",
  app: "",
  range: "7d",
  from: "",
  to: "",
  compare: true,
  metric: "viewers",
  by: "",
  id: "",
  filters: [],
};
const DAY = /^\d{4}-\d{2}-\d{2}$/;
const PROPERTY = /^[A-Za-z_][A-Za-z0-9_.]{0,63}$/;
const MAX_FILTERS = 8;

// Parse a query. Anything that is unknown is replaced by its default, so that an old link still opens.
export function parse(search) {
  const given = new URLSearchParams(search);
  const text = (name) => given.get(name) ?? DEFAULTS[name];
  const state = {
    ...DEFAULTS,
    app: text("app"),
    metric: text("metric"),
    by: text("by"),
    id: text("id"),
    compare: given.get("compare") !== "none",
    filters: parseFilters(given.getAll("filter")),
  };
  if (VIEWS.includes(given.get("view"))) state.view = given.get("view");
  if (RANGES.includes(given.get("range"))) state.range = given.get("range");
  if (state.range === "custom") {
    const isRange = DAY.test(given.get("from")) && DAY.test(given.get("to")) && given.get("from") <= given.get("to");
    if (isRange) [state.from, state.to] = [given.get("from"), given.get("to")];
    else state.range = DEFAULTS.range;
  }
  return state;
}

function parseFilters(texts) {
  // A name has no colon, see PROPERTY; the value of `eq` may have any character.
  const filters = texts.slice(0, MAX_FILTERS).map((text) => {
    const [property, op, ...rest] = text.split(":");
    return { property, op, value: rest.join(":") };
  });
  return filters.filter(({ property, op }) => PROPERTY.test(property) && op === "eq");
}

// Return the query of a state, without defaults; "" for the default state.
export function serialize(state) {
  const query = new URLSearchParams();
  for (const name of ["view", "app", "range", "metric", "by", "id"]) {
    if (state[name] !== DEFAULTS[name]) query.set(name, state[name]);
  }
  if (state.range === "custom") {
    query.set("from", state.from);
    query.set("to", state.to);
  }
  if (!state.compare) query.set("compare", "none");
  for (const { property, op, value } of state.filters) query.append("filter", `${property}:${op}:${value}`);
  return query.size ? `?${query}` : "";
}

// Return the state for another view: what belongs to one view only is left out.
export function withView(state, view, id = "", by = "") {
  return { ...state, view, id, by };
}

export function withFilter(state, property, value) {
  const others = state.filters.filter((each) => each.property !== property);
  return { ...state, filters: [...others, { property, op: "eq", value }] };
}

export function withoutFilter(state, property) {
  return { ...state, filters: state.filters.filter((each) => each.property !== property) };
}
