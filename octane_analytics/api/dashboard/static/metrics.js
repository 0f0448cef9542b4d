// The numbers of the cards: which column of which report, how it is shown, which direction is good, and
// the parameter of the scorecard that says up to which number a view is good.

import * as format from "./format.js";

export const SERIES = { playback: "playback_over_time", searches: "searches_over_time" };

export const METRICS = [
  { key: "viewers", label: "Viewers", source: "playback", column: "viewers", format: format.count, good: 1 },
  { key: "views", label: "Views", source: "playback", column: "views", format: format.count, good: 1 },
  { key: "watch_time", label: "Watch time", source: "playback", column: "watch_time", format: format.duration, good: 1 },
  {
    key: "view_duration",
    label: "Average view",
    source: "playback",
    column: "watch_time_per_view",
    format: format.duration,
    good: 1,
  },
  {
    key: "failures",
    label: "Playback failures",
    source: "playback",
    column: "failure_share",
    format: format.share,
    good: -1,
  },
  {
    key: "stalled",
    label: "Stalled time",
    source: "playback",
    column: "stalled_share",
    format: format.share,
    good: -1,
    threshold: "good_stalled_share",
  },
  {
    key: "startup",
    label: "Startup (p95)",
    source: "playback",
    column: "startup_ms_p95",
    format: format.milliseconds,
    good: -1,
    threshold: "good_startup_ms",
  },
  { key: "searches", label: "Searches", source: "searches", column: "searches", format: format.count, good: 0 },
  { key: "searchers", label: "Searching users", source: "searches", column: "unique_users", format: format.count, good: 0 },
  { key: "clicked", label: "Clicks per search", source: "searches", column: "click_through_rate", format: format.share, good: 1 },
  {
    key: "fruitless",
    label: "Searches without result",
    source: "searches",
    column: "zero_result_share",
    format: format.share,
    good: -1,
  },
];

export function metric(key, metrics = METRICS) {
  return metrics.find((each) => each.key === key) ?? metrics[0];
}
