// Numbers, durations and times in the reader's locale and time zone.

const whole = new Intl.NumberFormat();
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const decimal = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat(undefined, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const finePercent = new Intl.NumberFormat(undefined, {
  style: "percent",
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const roundPercent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });
const change = new Intl.NumberFormat(undefined, {
  style: "percent",
  maximumFractionDigits: 0,
  signDisplay: "exceptZero",
});
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
const minute = new Intl.DateTimeFormat(undefined, {
  weekday: "short",
  day: "numeric",
  month: "short",
  hour: "numeric",
  minute: "2-digit",
});
const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit", second: "2-digit" });
const shortDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const shortTime = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const hour = new Intl.DateTimeFormat(undefined, { hour: "numeric" });
const second = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const ABSENT = "–";
// Relative changes below are shown as none.
export const SAME = 0.005;

// A format is {short, long}: functions of a number; null is shown as a dash.
function format(short, long = short) {
  const guard = (shown) => (value) =>
    value === null || value === undefined || Number.isNaN(value) ? ABSENT : shown(value);
  return { short: guard(short), long: guard(long) };
}

export const count = format(
  (value) => (Math.abs(value) < 10_000 ? whole.format(Math.round(value)) : compact.format(value)),
  (value) => whole.format(value),
);
export const share = format((value) => (Math.abs(value) < 0.1 ? finePercent : percent).format(value));
export const briefShare = format((value) => percent.format(value));
export const wholeShare = format((value) => roundPercent.format(value));
export const number = format((value) => decimal.format(value));
export const milliseconds = format((value) =>
  value < 1000 ? `${whole.format(Math.round(value))} ms` : `${decimal.format(value / 1000)} s`,
);
export const duration = format(
  (seconds) => {
    if (seconds < 60) return `${decimal.format(seconds)} s`;
    const minutes = Math.round(seconds / 60);
    if (seconds < 600) return `${Math.floor(Math.round(seconds) / 60)} min ${Math.round(seconds) % 60} s`;
    if (minutes < 60) return `${minutes} min`;
    if (seconds < 10 * 3600) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
    return `${(seconds < 10_000 * 3600 ? decimal : compact).format(seconds / 3600)} h`;
  },
  (seconds) => `${whole.format(Math.round(seconds))} s`,
);
// A position within a video, as players show it.
export function position(seconds) {
  const total = Math.round(seconds);
  const pad = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(total / 3600);
  const rest = `${Math.floor((total % 3600) / 60)}:${pad(total % 60)}`;
  return hours ? `${hours}:${rest.padStart(5, "0")}` : rest;
}

export const megabytes = format((bytes) => `${whole.format(Math.round(bytes / 1e6))} MB`);
export const bitrate = format((kbps) =>
  kbps < 1000 ? `${whole.format(Math.round(kbps))} kbit/s` : `${decimal.format(kbps / 1000)} Mbit/s`,
);

// Times and lists as columns of a table; the former in RFC 3339.
export const moment = format((text) => minute.format(new Date(text)), (text) => second.format(new Date(text)));
export const list = format((texts) => texts.slice(0, 3).join(", ") + (texts.length > 3 ? " …" : ""), (texts) => texts.join(", "));

// Return the relative change, or null where it says nothing.
export function relativeChange(current, previous) {
  if (typeof current !== "number" || typeof previous !== "number" || previous === 0) return null;
  return (current - previous) / previous;
}

// A relative change as a column: null, without a value before, is new.
export const growth = {
  short: (value) => (typeof value === "number" ? `${arrow(value)} ${changeText(value)}` : "new"),
  long: (value) => (typeof value === "number" ? change.format(value) : "not in the period before"),
  tone: (value) => (typeof value !== "number" || Math.abs(value) < SAME ? "" : value > 0 ? "good" : "bad"),
};

export const signedDuration = format(
  (seconds) => `${seconds < 0 ? "\u2212" : "+"}${duration.short(Math.abs(seconds))}`,
  (seconds) => `${seconds < 0 ? "\u2212" : "+"}${duration.long(Math.abs(seconds))}`,
);

export function arrow(relative) {
  if (Math.abs(relative) < SAME) return "→";
  return relative > 0 ? "▲" : "▼";
}

export function changeText(value) {
  return Math.abs(value) >= 10 ? `>${change.format(9.99)}` : change.format(value);
}

export function bucketText(date, bucketSeconds) {
  return (bucketSeconds >= 86_400 ? day : minute).format(date);
}

export function axisText(date, spanSeconds) {
  return (spanSeconds > 2 * 86_400 ? shortDay : shortTime).format(date);
}

export function hourText(date) {
  return hour.format(date);
}

export function timeText(date) {
  return clock.format(date);
}

export function secondText(date) {
  return second.format(date);
}

export function dayText(date) {
  return shortDay.format(date);
}
