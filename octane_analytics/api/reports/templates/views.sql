/*
title = "Views"
description = """
Views and how they were watched, for each value of one dimension; most views first. A view is the events with one
`view_id`, else those of one session and content from one `video_start` to the next; see the page `events` of the
manual. Only its events within the range count. Views are those of Mux Data and the Attempts of Conviva: attempts
to play, successful or not. Exits before the start are attempts that ended before it without a fatal error, as
Conviva counts them, after any wait; Mux Data leaves out those below a second. Average duration and watched share
are averageViewDuration and averageViewPercentage of YouTube Analytics, of plays; a view's share is capped at 1.
Plays, completion and search plays are by our definition. Above `max_events` playback events in the range, users
are sampled; no rollup is used."""
key = ["value"]
cache_seconds = 60
is_sampled = true
max_events = 500000
page_rows = 100

[parameters.by]
type = "String"
default = "content"
help = "Dimension: content (content_id, else stream_id, else video_id), app_id, or any property; from the view's events, else its session_start."

[parameters.completion_share]
type = "Float64"
default = 0.95
minimum = 0.01
maximum = 1
help = "Position, as a share of the duration, from which a view is completed; video_end with `completed` always is."

[columns]
value = "Value of the dimension as text; empty if the view has none."
views = "Attempts to play: views with any playback event."
plays = "Views whose playback began: with a video_start or video_heartbeat."
viewers = "Distinct users of plays."
watch_time = "Time watched in seconds, to the millisecond."
average_view_duration = "watch_time in seconds per play, 3 decimals; null without plays."
average_watched_share = "Mean over plays of known duration of watched / duration, at most 1 each (0 to 1, 6 decimals); null without such plays."
completion_rate = "Share of plays that were completed (0 to 1, 6 decimals); null without plays."
exits_before_start_rate = "Share of views with a video_request that neither played nor failed (0 to 1, 6 decimals)."
search_plays = "Plays of a content that a search_click in the same session had opened, not after the view's first event."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."

[types]
value = "String"
views = "Nullable(UInt64)"
plays = "Nullable(UInt64)"
viewers = "Nullable(UInt64)"
watch_time = "Nullable(Float64)"
average_view_duration = "Nullable(Float64)"
average_watched_share = "Nullable(Float64)"
completion_rate = "Nullable(Float64)"
exits_before_start_rate = "Float64"
search_plays = "Nullable(UInt64)"
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
    toUInt64(round(uniqExactIf(user_id, is_played) / {share:Sample})) AS viewers,
    round(sum(watch_ms) / {share:Sample}) / 1000 AS watch_time,
    if(plays = 0, NULL, round(sum(watch_ms) / 1000 / countIf(is_played), 3)) AS average_view_duration,
    if(
        countIf(is_played AND duration_ms > 0) = 0,
        NULL,
        round(avgIf(least(watch_ms / duration_ms, 1), is_played AND duration_ms > 0), 6)
    ) AS average_watched_share,
    if(
        plays = 0,
        NULL,
        round(
            countIf(
                is_played
                AND (
                    is_completed
                    OR duration_ms > 0 AND furthest_ms >= {completion_share:Float64} * duration_ms
                )
            ) / countIf(is_played),
            6
        )
    ) AS completion_rate,
    round(countIf(is_requested AND NOT is_played AND NOT is_failed) / count(), 6)
        AS exits_before_start_rate,
    toUInt64(round(
        countIf(is_played AND clicked_at > 0 AND clicked_at <= toUnixTimestamp(first_at))
            / {share:Sample}
    )) AS search_plays,
    {share:Sample} AS sample
FROM {views:Source} AS every_view
LEFT JOIN
(
    SELECT
        app_id,
        JSONExtract(
            {properties:JSON},
            'Tuple(session_id String, content_id String, stream_id String, video_id String)'
        ) AS ids,
        ids.1 AS session_id,
        coalesce(nullIf(ids.2, ''), nullIf(ids.3, ''), ids.4) AS content,
        min(toUnixTimestamp(timestamp)) AS clicked_at
    FROM {database:Identifier}.{table:Identifier}
    WHERE event_name = 'search_click'
        AND timestamp >= {from:DateTime('UTC')}
        AND timestamp < {to:DateTime('UTC')}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
        {filters:And}
        AND {users:Sample}
        AND session_id != ''
        AND content != ''
    GROUP BY app_id, ids
) AS clicks USING (app_id, session_id, content)
GROUP BY value {totals:With}
ORDER BY count() DESC, value ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
