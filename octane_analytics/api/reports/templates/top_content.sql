/*
title = "Top content"
description = """
Content by time watched, most watched first, from the events `video_heartbeat`, `video_start` and
`video_buffering`. Content is identified by `properties.content_id`, else `stream_id`, else `video_id`; events
with none of them are excluded. `watch_time` is counted as in overview_stats. Whole weeks are answered from
the rollup `content_weeks`, whole hours of the other days from the rollup `content`."""
key = ["content_id"]
cache_seconds = 60
has_exact = true
page_rows = 20

[rollup]
prefers = "content"
weeks = "content_weeks"

[filters]
content = "content"

[columns]
content_id = "Identifier of the content."
watch_time = "Time watched in seconds, to the millisecond."
unique_viewers = "Distinct users with a heartbeat; up to 4,096 exactly, above with an error of about 0.3 %, unless `exact`."
heartbeats = "Number of video_heartbeat events."
starts = "Number of video_start events."
buffering_events = "Number of video_buffering events."
buffer_ms_per_watch_minute = "Milliseconds of buffering per minute watched, 3 decimals; null if watch_time is 0."

[types]
content_id = "String"
watch_time = "Float64"
unique_viewers = "UInt64"
heartbeats = "UInt64"
starts = "UInt64"
buffering_events = "UInt64"
buffer_ms_per_watch_minute = "Nullable(Float64)"
*/
SELECT
    content AS content_id,
    sumMerge(watch_ms) / 1000 AS watch_time,
    uniqCombined64IfMerge(viewers) AS unique_viewers,
    countIfMerge(heartbeat_events) AS heartbeats,
    countIfMerge(start_events) AS starts,
    countIfMerge(stalls) AS buffering_events,
    if(watch_time = 0, NULL, round(sumMerge(buffer_ms) / (watch_time / 60), 3))
        AS buffer_ms_per_watch_minute
FROM
(
    {rollup:begin}
    SELECT
        {content:Rollup} AS content,
        sumState({content_watch_ms:Rollup}) AS watch_ms,
        sumState({content_buffer_ms:Rollup}) AS buffer_ms,
        uniqCombined64IfState(user_id, event_name = 'video_heartbeat') AS viewers,
        countIfState(event_name = 'video_heartbeat') AS heartbeat_events,
        countIfState(event_name = 'video_start') AS start_events,
        countIfState(event_name = 'video_buffering') AS stalls
    FROM {database:Identifier}.{table:Identifier}
    WHERE {range:Rollup}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
        {filters:And}
        AND event_name IN ('video_heartbeat', 'video_start', 'video_buffering') -- events only
    GROUP BY content
    {rollup:end}
)
WHERE content != ''
GROUP BY content {totals:With}
HAVING heartbeats + starts + buffering_events > 0
ORDER BY watch_time DESC, heartbeats DESC, content_id ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
