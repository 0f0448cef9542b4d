/*
title = "Quality of experience: scorecard"
description = """
Failures, startup, stalls and bitrate of views for each value of one dimension; most views first. A view is
defined as in `views`; only its events within the range count. From CTA-2066: `playback_failure_rate` is Playback
Failure Percentage; `startup_ms_mean` is Average Initial Startup Time, with the histogram that it recommends;
`stalled_share` is Average Stalled Time Percentage, stalled in watched, stalled and startup time (without seeking,
which events do not measure); `average_bitrate_kbps` is Average Playback Bitrate, by watched and not media time;
`stalls_per_view` is Average Playback Stalled Count, of plays. `startup_failure_rate` is Video Start Failures of
Conviva, by attempts. From Mux Data: startup score 100 * 8 / (8 + startup seconds); smoothness score, the mean of
100 / sqrt(1 + (stalls / 2)^2) and 100 * exp(-10 * share), where share is here stalled / (watched + stalled). By
our definition: rebuffers per minute, switches, and good views, which played without a fatal error within the
thresholds; a measure that a view does not have meets them. Above `max_events` playback events in the range, users
are sampled; no rollup is used."""
key = ["value"]
cache_seconds = 60
is_sampled = true
max_events = 500000
page_rows = 100

[parameters.by]
type = "String"
default = "device"
help = "Dimension: content (content_id, else stream_id, else video_id), app_id, or any property; from the view's events, else its session_start."

[parameters.good_startup_ms]
type = "UInt32"
default = 2000
help = "Longest startup of a good view, in milliseconds."

[parameters.good_stalled_share]
type = "Float64"
default = 0.01
minimum = 0
maximum = 1
help = "Highest share of stalled in watched and stalled time of a good view."

[parameters.good_bitrate_kbps]
type = "UInt32"
default = 0
help = "Lowest average bitrate of a good view, in kbit/s."

[columns]
value = "Value of the dimension as text; empty if the view has none."
views = "Attempts to play: views with any playback event."
plays = "Views whose playback began: with a video_start or video_heartbeat."
playback_failure_rate = "Share of views with a fatal video_error (0 to 1, 6 decimals)."
startup_failure_rate = "Share of views with a fatal video_error that did not play (0 to 1, 6 decimals)."
startup_ms_mean = "Mean startup_ms of views that have one, in milliseconds, 3 decimals; null without."
startup_ms_p50 = "Median of startup_ms in milliseconds; null without."
startup_ms_p95 = "95th percentile of startup_ms in milliseconds; null without."
startup_histogram = "Views of a startup below 500, 1000, 2000, 4000 and 8000 ms, and of 8000 ms or more, each without the ones before."
stalls_per_view = "video_buffering events per play, 6 decimals; null without plays."
stalled_share = "Stalled time in watched, stalled and startup time (0 to 1, 6 decimals); null if all are 0."
rebuffers_per_minute = "video_buffering events per minute watched, 6 decimals; null if none was watched."
average_bitrate_kbps = "Mean bitrate_kbps of heartbeats, weighted by watch_time, in kbit/s, 3 decimals; null without."
switches_per_view = "video_quality_change events per play, 6 decimals; null without plays."
startup_score = "Mean startup score of views that have a startup (0 to 100, 3 decimals); null without."
smoothness_score = "Mean smoothness score of plays (0 to 100, 3 decimals); null without plays."
good_views_rate = "Share of views that are good (0 to 1, 6 decimals)."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."

[types]
value = "String"
views = "Nullable(UInt64)"
plays = "Nullable(UInt64)"
playback_failure_rate = "Float64"
startup_failure_rate = "Float64"
startup_ms_mean = "Nullable(Float64)"
startup_ms_p50 = "Nullable(UInt64)"
startup_ms_p95 = "Nullable(UInt64)"
startup_histogram = "Array(Nullable(UInt64))"
stalls_per_view = "Nullable(Float64)"
stalled_share = "Nullable(Float64)"
rebuffers_per_minute = "Nullable(Float64)"
average_bitrate_kbps = "Nullable(Float64)"
switches_per_view = "Nullable(Float64)"
startup_score = "Nullable(Float64)"
smoothness_score = "Nullable(Float64)"
good_views_rate = "Float64"
sample = "Nullable(Float64)"
*/
WITH
    {sample:begin}
    {is_playback:Source}
    {sample:end}
SELECT
    value,
    toUInt64(round(count() / {share:Sample})) AS views,
    toUInt64(round(countIf(is_played) / {share:Sample})) AS plays,
    round(countIf(is_failed) / count(), 6) AS playback_failure_rate,
    round(countIf(is_failed AND NOT is_played) / count(), 6) AS startup_failure_rate,
    if(countIf(startup_ms > 0) = 0, NULL, round(sum(startup_ms) / countIf(startup_ms > 0), 3)) AS startup_ms_mean,
    -- Measured times are above 0; 0 is the quantile of none.
    nullIf(toUInt64(quantileExactLowIf(0.5)(startup_ms, startup_ms > 0)), 0) AS startup_ms_p50,
    nullIf(toUInt64(quantileExactLowIf(0.95)(startup_ms, startup_ms > 0)), 0) AS startup_ms_p95,
    arrayMap(
        found -> toUInt64(round(found / {share:Sample})),
        [
            countIf(startup_ms > 0 AND startup_ms < 500),
            countIf(startup_ms >= 500 AND startup_ms < 1000),
            countIf(startup_ms >= 1000 AND startup_ms < 2000),
            countIf(startup_ms >= 2000 AND startup_ms < 4000),
            countIf(startup_ms >= 4000 AND startup_ms < 8000),
            countIf(startup_ms >= 8000)
        ]
    ) AS startup_histogram,
    if(plays = 0, NULL, round(sum(stalls) / countIf(is_played), 6)) AS stalls_per_view,
    if(
        sum(watch_ms) + sum(stall_ms) + sum(startup_ms) = 0,
        NULL,
        round(sum(stall_ms) / (sum(watch_ms) + sum(stall_ms) + sum(startup_ms)), 6)
    ) AS stalled_share,
    if(sum(watch_ms) = 0, NULL, round(sum(stalls) / (sum(watch_ms) / 60000), 6))
        AS rebuffers_per_minute,
    if(sum(rated_ms) = 0, NULL, round(sum(kilobits) / sum(rated_ms), 3)) AS average_bitrate_kbps,
    if(plays = 0, NULL, round(sum(switches) / countIf(is_played), 6)) AS switches_per_view,
    if(countIf(startup_ms > 0) = 0, NULL, round(avgIf(800 / (8 + startup_ms / 1000), startup_ms > 0), 3))
        AS startup_score,
    if(
        plays = 0,
        NULL,
        round(
            avgIf(50 / sqrt(1 + pow(stalls / 2, 2)) + 50 * exp(-10 * view_stalled_share), is_played),
            3
        )
    ) AS smoothness_score,
    round(
        countIf(
            is_played
            AND NOT is_failed
            AND startup_ms <= {good_startup_ms:UInt32}
            AND view_stalled_share <= {good_stalled_share:Float64}
            AND (rated_ms = 0 OR kilobits >= {good_bitrate_kbps:UInt32} * rated_ms)
        ) / count(),
        6
    ) AS good_views_rate,
    {share:Sample} AS sample
FROM
(
    SELECT *, if(stall_ms = 0, 0, stall_ms / (watch_ms + stall_ms)) AS view_stalled_share
    FROM {views:Source}
)
GROUP BY value {totals:With}
ORDER BY count() DESC, value ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
