/*
title = "Quality of experience"
description = """
How well playback goes, for each value of one property of `video_start`, `video_heartbeat`,
`video_buffering` and `video_error` events; most watched first. Events without the property count under an
empty value. `watch_time` counts as in overview_stats; `startup_ms` of `video_start` and `buffer_duration_ms`
of `video_buffering` count where they are JSON numbers above 0 and up to 86400000."""
cache_seconds = 60
page_rows = 100

[parameters.by]
type = "String"
default = "network_type"
allowed = ["network_type", "client_version", "content_id", "stream_id", "device", "country", "app_id"]
help = "The property to group by; app_id is the event's own."

[columns]
value = "The property's value as text."
viewers = "Distinct users with a heartbeat."
watch_time = "Seconds, to the millisecond."
starts = "video_start events."
buffering_events = "video_buffering events."
buffering_users = "Distinct users who buffered."
buffering_per_watch_hour = "buffering_events for each hour watched, 3 decimals; null if unwatched."
buffer_ratio = "Time buffering by time buffering and watching, 6 decimals; null without either."
errors = "video_error events."
fatal_errors = "Those of them whose properties.fatal is true."
startup_ms_median = "Half of the starts took no longer than this; null without any."
startup_ms_p95 = "95 of 100 starts took no longer than this; null without any."
buffer_ms_median = "Half of the stalls were no longer than this; null without any."
buffer_ms_p95 = "95 of 100 stalls were no longer than this; null without any."
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
        -- The raw text keeps a string's quotes, so that only numbers survive.
        transform(
            event_name,
            ['video_heartbeat', 'video_start', 'video_buffering'],
            ['watch_time', 'startup_ms', 'buffer_duration_ms'],
            ''
        ) AS measure,
        toFloat64OrZero(JSONExtractRaw(readable, measure)) AS measured,
        -- Whole milliseconds add up to the same sum in any order.
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
