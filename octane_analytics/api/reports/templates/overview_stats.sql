/*
title = "Overview"
description = """
One row with the totals of the range. `watch_time` is counted if it is a JSON number of seconds above 0 and up
to 86400 (one day); any other value (a string, null, a negative number, missing) counts as zero."""
cache_seconds = 30

[columns]
total_events = "All events."
unique_users = "Distinct user_id."
sessions = "Distinct non-empty properties.session_id."
video_heartbeats = "Number of video_heartbeat events."
total_watch_time = "Sum of the heartbeats' watch_time in seconds, to the millisecond."
avg_watch_time_per_viewer = "total_watch_time in seconds per distinct user with a heartbeat; 0 without viewers."
searches = "Number of search events."
first_event = "Time of the earliest event; null without events."
last_event = "Time of the latest event; null without events."
*/
SELECT
    count() AS total_events,
    uniqExact(user_id) AS unique_users,
    uniqExactIf(session_id, session_id != '') AS sessions,
    countIf(event_name = 'video_heartbeat') AS video_heartbeats,
    sum(watch_ms) / 1000 AS total_watch_time,
    total_watch_time / greatest(uniqExactIf(user_id, event_name = 'video_heartbeat'), 1)
        AS avg_watch_time_per_viewer,
    countIf(event_name = 'search') AS searches,
    toTimeZone(minOrNull(timestamp), 'UTC') AS first_event,
    toTimeZone(maxOrNull(timestamp), 'UTC') AS last_event
FROM
(
    SELECT
        {properties:JSON} AS readable,
        timestamp,
        event_name,
        user_id,
        JSONExtractString(readable, 'session_id') AS session_id,
        -- The raw text of a string has quotes, so only numbers are converted.
        if(
            event_name = 'video_heartbeat',
            toFloat64OrZero(JSONExtractRaw(readable, 'watch_time')),
            0
        ) AS watch_time,
        -- The sum of whole milliseconds does not depend on their order.
        if(watch_time > 0 AND watch_time <= 86400, toUInt64(round(watch_time * 1000)), 0) AS watch_ms
    FROM {database:Identifier}.{table:Identifier}
    WHERE timestamp >= {from:DateTime('UTC')}
        AND timestamp < {to:DateTime('UTC')}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
)
