/*
title = "Quality of experience"
description = """
Playback quality for each value of one property of `video_start`, `video_heartbeat`, `video_buffering` and
`video_error` events; most watched first. Events without the property are grouped under an empty value.
`watch_time` is counted as in overview_stats; `startup_ms` of `video_start` and `buffer_duration_ms` of
`video_buffering` are counted if they are JSON numbers above 0 and up to 86400000."""
cache_seconds = 60
page_rows = 100

[parameters.by]
type = "String"
default = "network_type"
allowed = ["network_type", "client_version", "content_id", "stream_id", "device", "country", "app_id"]
help = "Property to group by; app_id is the field of the event."

[columns]
value = "Value of the property as text."
viewers = "Distinct users with a heartbeat."
watch_time = "Time watched in seconds, to the millisecond."
starts = "Number of video_start events."
buffering_events = "Number of video_buffering events."
buffering_users = "Distinct users with a video_buffering event."
buffering_per_watch_hour = "buffering_events per hour watched, 3 decimals; null if watch_time is 0."
buffer_ratio = "Share of buffering in the time of buffering and watching (0 to 1, 6 decimals); null if both are 0."
errors = "Number of video_error events."
fatal_errors = "video_error events whose properties.fatal is true."
startup_ms_median = "Median of startup_ms in milliseconds; null without starts."
startup_ms_p95 = "95th percentile of startup_ms in milliseconds; null without starts."
buffer_ms_median = "Median of buffer_duration_ms in milliseconds; null without stalls."
buffer_ms_p95 = "95th percentile of buffer_duration_ms in milliseconds; null without stalls."
*/
SELECT
    value,
    uniqExactIf(user_id, event_name = 'video_heartbeat') AS viewers,
    sum(watch_ms) / 1000 AS watch_time,
    countIf(event_name = 'video_start') AS starts,
    countIf(event_name = 'video_buffering') AS buffering_events,
    uniqExactIf(user_id, event_name = 'video_buffering') AS buffering_users,
    if(watch_time = 0, NULL, round(buffering_events / (watch_time / 3600), 3))
        AS buffering_per_watch_hour,
    if(
        sum(buffer_ms) + sum(watch_ms) = 0,
        NULL,
        round(sum(buffer_ms) / (sum(buffer_ms) + sum(watch_ms)), 6)
    ) AS buffer_ratio,
    countIf(event_name = 'video_error') AS errors,
    countIf(event_name = 'video_error' AND is_fatal) AS fatal_errors,
    quantileExactLowOrNullIf(0.5)(startup_ms, startup_ms > 0) AS startup_ms_median,
    quantileExactLowOrNullIf(0.95)(startup_ms, startup_ms > 0) AS startup_ms_p95,
    quantileExactLowOrNullIf(0.5)(buffer_ms, buffer_ms > 0) AS buffer_ms_median,
    quantileExactLowOrNullIf(0.95)(buffer_ms, buffer_ms > 0) AS buffer_ms_p95
FROM
(
    SELECT
        {properties:JSON} AS readable,
        event_name,
        user_id,
        if({by:String} = 'app_id', app_id, JSONExtractString(readable, {by:String})) AS value,
        -- The raw text of a string has quotes, so only numbers are converted.
        transform(
            event_name,
            ['video_heartbeat', 'video_start', 'video_buffering'],
            ['watch_time', 'startup_ms', 'buffer_duration_ms'],
            ''
        ) AS measure,
        toFloat64OrZero(JSONExtractRaw(readable, measure)) AS measured,
        -- The sum of whole milliseconds does not depend on their order.
        if(
            event_name = 'video_heartbeat' AND measured > 0 AND measured <= 86400,
            toUInt64(round(measured * 1000)),
            0
        ) AS watch_ms,
        if(measured > 0 AND measured <= 86400000, toUInt64(round(measured)), 0) AS measured_ms,
        if(event_name = 'video_start', measured_ms, 0) AS startup_ms,
        if(event_name = 'video_buffering', measured_ms, 0) AS buffer_ms,
        event_name = 'video_error' AND JSONExtractRaw(readable, 'fatal') = 'true' AS is_fatal
    FROM {database:Identifier}.{table:Identifier}
    WHERE event_name IN ('video_heartbeat', 'video_start', 'video_buffering', 'video_error')
        AND timestamp >= {from:DateTime('UTC')}
        AND timestamp < {to:DateTime('UTC')}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
)
GROUP BY value
ORDER BY watch_time DESC, buffering_events DESC, value ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
