/*
title = "Top content"
description = """
Content by time watched, most watched first, from the events `video_heartbeat`, `video_start` and
`video_buffering`. Content is identified by `properties.content_id`, else `stream_id`, else `video_id`; events
with none of them are excluded. `watch_time` is counted as in overview_stats."""
cache_seconds = 60
page_rows = 20

[columns]
content_id = "Identifier of the content."
watch_time = "Time watched in seconds, to the millisecond."
unique_viewers = "Distinct users with a heartbeat."
heartbeats = "Number of video_heartbeat events."
starts = "Number of video_start events."
buffering_events = "Number of video_buffering events."
buffer_ms_per_watch_minute = "Milliseconds of buffering per minute watched, 3 decimals; null if watch_time is 0."
*/
SELECT
    content_id,
    sum(watch_ms) / 1000 AS watch_time,
    uniqExactIf(user_id, event_name = 'video_heartbeat') AS unique_viewers,
    countIf(event_name = 'video_heartbeat') AS heartbeats,
    countIf(event_name = 'video_start') AS starts,
    countIf(event_name = 'video_buffering') AS buffering_events,
    if(watch_time = 0, NULL, round(sum(buffer_ms) / (watch_time / 60), 3)) AS buffer_ms_per_watch_minute
FROM
(
    SELECT
        {properties:JSON} AS readable,
        event_name,
        user_id,
        JSONExtract(readable, 'Tuple(content_id String, stream_id String, video_id String)') AS ids,
        multiIf(ids.1 != '', ids.1, ids.2 != '', ids.2, ids.3) AS content_id,
        -- The raw text of a string has quotes, so only numbers are converted.
        if(
            event_name = 'video_heartbeat',
            toFloat64OrZero(JSONExtractRaw(readable, 'watch_time')),
            0
        ) AS watch_time,
        if(
            event_name = 'video_buffering',
            toFloat64OrZero(JSONExtractRaw(readable, 'buffer_duration_ms')),
            0
        ) AS buffer_duration_ms,
        -- The sum of whole milliseconds does not depend on their order.
        if(watch_time > 0 AND watch_time <= 86400, toUInt64(round(watch_time * 1000)), 0) AS watch_ms,
        if(
            buffer_duration_ms > 0 AND buffer_duration_ms <= 86400000,
            toUInt64(round(buffer_duration_ms)),
            0
        ) AS buffer_ms
    FROM {database:Identifier}.{table:Identifier}
    WHERE event_name IN ('video_heartbeat', 'video_start', 'video_buffering')
        AND timestamp >= {from:DateTime('UTC')}
        AND timestamp < {to:DateTime('UTC')}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
)
WHERE content_id != ''
GROUP BY content_id
ORDER BY watch_time DESC, heartbeats DESC, content_id ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
