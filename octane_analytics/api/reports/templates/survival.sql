/*
title = "Survival of views"
description = """
Share of plays that watched at least a time, for each value of one dimension; the values in order, and the times
from 0. A view and a play are defined as in `views`; only its events within the range count. Unlike audience
retention, the time is that watched, not the position: the survival function of a view's Playing Time (Mux
Data). Times longer than the longest play of a value are left out. Above `max_events` playback events in the
range, users are sampled; no rollup is used."""
key = ["value", "watched_seconds"]
cache_seconds = 300
is_sampled = true
max_events = 500000
page_rows = 1000

[parameters.by]
type = "String"
default = "app_id"
help = "Dimension: app_id, content (content_id, else stream_id, else video_id), or any property; from the view's events, else its session_start."

[parameters.content]
type = "String"
help = "Only views of this content: a content_id, stream_id or video_id; absent for all."

[parameters.step_seconds]
type = "UInt32"
default = 30
minimum = 1
maximum = 86400
help = "Distance between two times, in seconds."

[parameters.points]
type = "UInt16"
default = 60
minimum = 1
maximum = 200
help = "Number of times, the first being 0."

[columns]
value = "Value of the dimension as text; empty if the view has none."
watched_seconds = "Time watched, in seconds."
views = "Plays that watched at least as long."
share = "views divided by all plays of the value (0 to 1, 6 decimals)."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."

[types]
value = "String"
watched_seconds = "UInt64"
views = "Nullable(UInt64)"
share = "Float64"
sample = "Nullable(Float64)"
*/
WITH
    {sample:begin}
    {is_playback:Source}
    {sample:end}
SELECT
    value,
    toUInt32(point) * {step_seconds:UInt32} AS watched_seconds,
    toUInt64(round(count() / {share:Sample})) AS views,
    round(count() / max(count()) OVER (PARTITION BY value), 6) AS share,
    {share:Sample} AS sample
FROM {views:Source} AS every_view
ARRAY JOIN range(
    toUInt32(least(intDiv(watch_ms, 1000 * toUInt64({step_seconds:UInt32})) + 1, {points:UInt16}))
) AS point
WHERE is_played AND ({content:String} = '' OR content = {content:String})
GROUP BY value, point
ORDER BY value ASC, point ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
