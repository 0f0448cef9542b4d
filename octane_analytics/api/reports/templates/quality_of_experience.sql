/*
title = "Quality of experience"
description = """
Playback quality for each value of one property of `video_start`, `video_heartbeat`, `video_buffering` and
`video_error` events; most watched first. Events without the property are grouped under an empty value.
`watch_time` is counted as in overview_stats; `startup_ms` of `video_start` and `buffer_duration_ms` of
`video_buffering` are counted if they are JSON numbers above 0 and up to 86400000. Whole hours are answered from
the rollup `quality`, except by content_id and stream_id, which read all events. `buffer_ratio` is, by our
definition, a share of the time after startup: the rollup holds the distribution of startup times and not their
sum. `stalled_share` of `qoe_scorecard` is that of CTA-2066, which includes startup."""
key = ["value"]
cache_seconds = 60
has_exact = true
page_rows = 100

[parameters.by]
type = "String"
default = "network_type"
allowed = ["network_type", "client_version", "content_id", "stream_id", "device", "country", "app_id"]
help = "Property to group by; app_id is the field of the event."

[rollup]
prefers = "quality"

[filters]
network_type = "quality_network_type"
client_version = "quality_client_version"
device = "quality_device"
country = "quality_country"

[columns]
value = "Value of the property as text."
viewers = "Distinct users with a heartbeat; up to 4,096 exactly, above with an error of about 0.3 %, unless `exact`."
watch_time = "Time watched in seconds, to the millisecond."
starts = "Number of video_start events."
buffering_events = "Number of video_buffering events."
buffering_users = "Distinct users with a video_buffering event, as exact as viewers."
buffering_per_watch_hour = "buffering_events per hour watched, 3 decimals; null if watch_time is 0."
buffer_ratio = "Share of buffering in the time of buffering and watching (0 to 1, 6 decimals); null if both are 0."
errors = "Number of video_error events."
fatal_errors = "video_error events whose properties.fatal is true."
startup_ms_median = "Median of startup_ms in milliseconds; null without starts."
startup_ms_p95 = "95th percentile of startup_ms in milliseconds; null without starts."
buffer_ms_median = "Median of buffer_duration_ms in milliseconds; null without stalls."
buffer_ms_p95 = "95th percentile of buffer_duration_ms in milliseconds; null without stalls."

[types]
value = "String"
viewers = "UInt64"
watch_time = "Float64"
starts = "UInt64"
buffering_events = "UInt64"
buffering_users = "UInt64"
buffering_per_watch_hour = "Nullable(Float64)"
buffer_ratio = "Nullable(Float64)"
errors = "UInt64"
fatal_errors = "UInt64"
startup_ms_median = "Nullable(UInt64)"
startup_ms_p95 = "Nullable(UInt64)"
buffer_ms_median = "Nullable(UInt64)"
buffer_ms_p95 = "Nullable(UInt64)"
*/
SELECT
    value,
    uniqCombined64IfMerge(heartbeat_users) AS viewers,
    sumMerge(watch_ms) / 1000 AS watch_time,
    countIfMerge(start_events) AS starts,
    countIfMerge(stalls) AS buffering_events,
    uniqCombined64IfMerge(stalled_users) AS buffering_users,
    if(watch_time = 0, NULL, round(buffering_events / (watch_time / 3600), 3))
        AS buffering_per_watch_hour,
    if(
        sumMerge(buffer_ms) + sumMerge(watch_ms) = 0,
        NULL,
        round(sumMerge(buffer_ms) / (sumMerge(buffer_ms) + sumMerge(watch_ms)), 6)
    ) AS buffer_ratio,
    countIfMerge(error_events) AS errors,
    countIfMerge(fatal_events) AS fatal_errors,
    -- Measured times are above 0; 0 is the quantile of none.
    nullIf(toUInt64(quantilesExactLowIfMerge(0.5, 0.95)(startup_times)[1]), 0) AS startup_ms_median,
    nullIf(toUInt64(quantilesExactLowIfMerge(0.5, 0.95)(startup_times)[2]), 0) AS startup_ms_p95,
    nullIf(toUInt64(quantilesExactLowIfMerge(0.5, 0.95)(buffer_times)[1]), 0) AS buffer_ms_median,
    nullIf(toUInt64(quantilesExactLowIfMerge(0.5, 0.95)(buffer_times)[2]), 0) AS buffer_ms_p95
FROM
(
    {rollup:begin}
    SELECT
        if({by:String} = 'app_id', app_id, {quality_value:Rollup}) AS value,
        sumState({quality_watch_ms:Rollup}) AS watch_ms,
        sumState({quality_buffer_ms:Rollup}) AS buffer_ms,
        countIfState(event_name = 'video_start') AS start_events,
        countIfState(event_name = 'video_buffering') AS stalls,
        countIfState(event_name = 'video_error') AS error_events,
        countIfState({quality_is_fatal:Rollup}) AS fatal_events,
        uniqCombined64IfState(user_id, event_name = 'video_heartbeat') AS heartbeat_users,
        uniqCombined64IfState(user_id, event_name = 'video_buffering') AS stalled_users,
        quantilesExactLowIfState(0.5, 0.95)(toUInt32({quality_startup_ms:Rollup}), {quality_startup_ms:Rollup} > 0)
            AS startup_times,
        quantilesExactLowIfState(0.5, 0.95)(toUInt32({quality_buffer_ms:Rollup}), {quality_buffer_ms:Rollup} > 0)
            AS buffer_times
    FROM {database:Identifier}.{table:Identifier}
    WHERE {range:Rollup}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
        {filters:And}
        AND event_name IN ('video_heartbeat', 'video_start', 'video_buffering', 'video_error') -- events only
    GROUP BY value
    {rollup:end}
)
GROUP BY value {totals:With}
HAVING viewers + starts + buffering_events + errors > 0
ORDER BY watch_time DESC, buffering_events DESC, value ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
