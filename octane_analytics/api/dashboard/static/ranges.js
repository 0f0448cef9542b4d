// Ranges of time as parameters of reports, in the reader's time zone.

export const TIMEZONE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

const HOUR = 3600;
export const DAY = 86_400;
const RELATIVE = { "24h": ["h", 24], "7d": ["d", 7], "30d": ["d", 30], "90d": ["d", 90] };

// Return {current, compared, bucket, isOpen, seconds}. Ranges relative to now stay relative: the service
// answers all readers of one minute from its cache.
export function ranges(state, now = new Date()) {
  if (state.range in RELATIVE) {
    const [unit, length] = RELATIVE[state.range];
    const seconds = length * (unit === "h" ? HOUR : DAY);
    return {
      current: { from: `-${length}${unit}` },
      compared: "previous_period",
      bucket: bucketFor(seconds),
      isOpen: true,
      seconds,
    };
  }
  const start = state.range === "today" ? midnight(now) : localDay(state.from);
  const planned = state.range === "today" ? addDays(start, 1) : addDays(localDay(state.to), 1);
  const isOpen = planned > now;
  const end = isOpen ? now : planned;
  const days = Math.round((planned - start) / (DAY * 1000));
  const seconds = Math.max(1, Math.round((planned - start) / 1000));
  return {
    current: { from: text(start), ...(isOpen ? {} : { to: text(end) }) },
    // The same part of the days before, so that a running day is compared with as much of another.
    compared: `${text(addDays(start, -days))}/${isOpen ? `-${days * 24}h` : text(addDays(end, -days))}`,
    bucket: bucketFor(seconds),
    isOpen,
    seconds,
  };
}

function bucketFor(seconds) {
  if (seconds <= 2 * DAY + 2 * HOUR) return HOUR;
  if (seconds <= 14 * DAY) return 6 * HOUR;
  return DAY;
}

function midnight(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate());
}

function localDay(day) {
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year, month - 1, date);
}

export function addDays(date, days) {
  const moved = new Date(date);
  moved.setDate(moved.getDate() + days);
  return moved;
}

function text(date) {
  return date.toISOString().replace(/\.\d+Z$/, "Z");
}

export function dayInput(date) {
  const pad = (value) => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
}
