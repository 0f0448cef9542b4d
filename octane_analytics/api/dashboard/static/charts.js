// Line charts by uPlot, and sparklines.

import { element, svg } from "./dom.js";
import { axisText, bucketText } from "./format.js";

const HEIGHT = 260;
const DAY = 86_400;
const DAYS_SHOWN_FROM = 2 * DAY;
const DAY_STEPS = [1, 2, 3, 7, 14, 28].map((days) => days * DAY);
const POSITION_STEPS = [1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];
const SPARK_WIDTH = 100;
const SPARK_HEIGHT = 28;

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Return a small line of the values; nulls are gaps. It repeats what the card says, so it is hidden from
// screen readers.
export function sparkline(values) {
  const numbers = values.filter((value) => typeof value === "number");
  const [low, high] = [Math.min(...numbers, 0), Math.max(...numbers)];
  const step = SPARK_WIDTH / Math.max(values.length - 1, 1);
  const y = (value) => SPARK_HEIGHT - 1 - ((value - low) / (high - low || 1)) * (SPARK_HEIGHT - 2);
  let path = "";
  values.forEach((value, i) => {
    if (typeof value !== "number") return;
    const isStart = typeof values[i - 1] !== "number";
    const isAlone = isStart && typeof values[i + 1] !== "number";
    path += `${isStart ? "M" : "L"}${(i * step).toFixed(1)} ${y(value).toFixed(1)}${isAlone ? "h0" : ""}`;
  });
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { d: path }),
  );
}

// A line over time, with an optional line of another period below it. Create one and call `draw` for each
// new answer: the canvas is drawn again, not created again.
export class LineChart {
  #plot = null;
  #shown = null;
  #legend = element("p", { className: "legend" });
  #canvas = element("div", { className: "chart", role: "img" });

  constructor() {
    this.element = element("div", {}, this.#legend, this.#canvas);
    new ResizeObserver(() => this.#resize()).observe(this.#canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#restart());
  }

  // `shown`: {label, format, bucket, points: [{time: Date, value}], before: [{time, value}] | null,
  // isOpen: whether the last bucket still runs, axis: function of x for another axis than time}.
  draw(shown) {
    const isSameShape = this.#shown && this.#shown.axis === shown.axis && this.#shown.format === shown.format;
    this.#shown = shown;
    this.#canvas.setAttribute("aria-label", summary(shown));
    const data = this.#data();
    if (this.#plot && isSameShape) this.#plot.setData(data);
    else this.#restart();
    this.#describe(null);
  }

  #data() {
    const { points, before, isOpen } = this.#shown;
    const last = points.length - 1;
    const hasTail = isOpen && last > 0;
    return [
      points.map(({ time }) => time / (this.#shown.axis ? 1 : 1000)),
      points.map((_, i) => before?.[i]?.value ?? null),
      points.map(({ value }, i) => (hasTail && i === last ? null : value)),
      points.map(({ value }, i) => (hasTail && i >= last - 1 ? value : null)),
    ];
  }

  #restart() {
    if (!this.#shown) return;
    this.#plot?.destroy();
    const { format, axis, points } = this.#shown;
    const span = points.length > 1 ? (points.at(-1).time - points[0].time) / 1000 : 0;
    const line = { stroke: color("--accent"), width: 2, points: { show: true, filter: alone, size: 6 } };
    const tick = { stroke: color("--line"), width: 1 };
    const text = axis ?? ((x) => axisText(new Date(x * 1000), span));
    this.#plot = new globalThis.uPlot(
      {
        width: this.#width(),
        height: HEIGHT,
        legend: { show: false },
        padding: [null, 30, null, null], // room for the text of the last mark
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { x: { time: !axis }, y: { range: (_, low, high) => [Math.min(low ?? 0, 0), (high || 1) * 1.08] } },
        series: [
          {},
          { stroke: color("--before"), width: 1.5, dash: [5, 5], points: { show: true, filter: alone, size: 5 } },
          { ...line, fill: `${color("--accent")}1a` },
          { ...line, dash: [3, 4] },
        ],
        axes: [
          {
            stroke: color("--dim"),
            grid: { show: false },
            ticks: tick,
            space: 64,
            values: (_, splits) => splits.map(text),
            ...steps(axis, span),
          },
          {
            stroke: color("--dim"),
            grid: tick,
            ticks: { show: false },
            size: 76,
            values: (_, splits) => splits.map((value) => format.short(value)),
          },
        ],
        hooks: { setCursor: [(plot) => this.#describe(plot.cursor.idx)] },
      },
      this.#data(),
      this.#canvas,
    );
  }

  #describe(index) {
    const { label, format, points, before, bucket, isOpen, axis } = this.#shown;
    if (index === null || index === undefined || !points[index]) {
      this.#legend.replaceChildren(
        element("span", { className: "key" }, label),
        ...(before ? [element("span", { className: "key before" }, this.#shown.beforeLabel ?? "Previous period")] : []),
      );
      return;
    }
    const name = (time) => (axis ? axis(time) : bucketText(time, bucket));
    const suffix = isOpen && index === points.length - 1 ? " so far" : "";
    const then = before?.[index];
    this.#legend.replaceChildren(
      element("span", { className: "key" }, `${name(points[index].time)}: ${format.short(points[index].value)}${suffix}`),
      ...(then ? [element("span", { className: "key before" }, `${name(then.time)}: ${format.short(then.value)}`)] : []),
    );
  }

  #width() {
    return Math.max(this.#canvas.clientWidth, 200);
  }

  #resize() {
    if (this.#plot && this.#plot.width !== this.#width()) {
      this.#plot.setSize({ width: this.#width(), height: HEIGHT });
    }
  }
}

// Return the indices of values without a neighbour, which a line does not show.
function alone(plot, series) {
  const values = plot.data[series];
  const isGap = (i) => typeof values[i] !== "number";
  return values.flatMap((_, i) => (!isGap(i) && isGap(i - 1) && isGap(i + 1) ? [i] : []));
}

// Return the distances between marks of the x axis that may be chosen.
function steps(axis, span) {
  if (axis) return { incrs: POSITION_STEPS };
  return span > DAYS_SHOWN_FROM ? { incrs: DAY_STEPS } : {};
}

function summary({ label, format, points, bucket, axis }) {
  const known = points.filter(({ value }) => typeof value === "number");
  if (!known.length) return `${label}: no data`;
  const highest = known.reduce((best, each) => (each.value > best.value ? each : best));
  const when = axis ? axis(highest.time) : bucketText(highest.time, bucket);
  return `${label}: ${points.length} points, highest ${format.short(highest.value)} (${when})`;
}
