/*
title = "Overview"
description = """
One row with the totals of the range. `watch_time` is counted if it is a JSON number of seconds above 0 and up
to 86400 (one day); any other value (a string, null, a negative number, missing) counts as zero. Whole hours
are answered from the rollup `users`."""
key = []
cache_seconds = 30
has_exact = true

[rollup]
prefers = "users"

[columns]
total_events = "All events."
unique_users = "Distinct user_id; up to 4,096 exactly, above with an error of about 0.3 %, unless `exact`."
sessions = "Distinct non-empty properties.session_id, as exact as unique_users."
video_heartbeats = "Number of video_heartbeat events."
total_watch_time = "Sum of the heartbeats' watch_time in seconds, to the millisecond."
avg_watch_time_per_viewer = "total_watch_time in seconds per distinct user with a heartbeat, as exact as unique_users; 0 without viewers."
searches = "Number of search events."
first_event = "Time of the earliest event; null without events."
last_event = "Time of the latest event; null without events."

[types]
total_events = "UInt64"
unique_users = "UInt64"
sessions = "UInt64"
video_heartbeats = "UInt64"
total_watch_time = "Float64"
avg_watch_time_per_viewer = "Float64"
searches = "UInt64"
first_event = "Nullable(DateTime)"
last_event = "Nullable(DateTime)"
*/
SELECT
    countMerge(events) AS total_events,
    uniqCombined64Merge(users) AS unique_users,
    -- The states of nullable values merge to null if there are none.
    ifNull(uniqCombined64Merge(visits), 0) AS sessions,
    countIfMerge(heartbeats) AS video_heartbeats,
    sumMerge(watch_ms) / 1000 AS total_watch_time,
    total_watch_time / greatest(uniqCombined64IfMerge(viewers), 1) AS avg_watch_time_per_viewer,
    countIfMerge(search_events) AS searches,
    toTimeZone(if(total_events = 0, NULL, minMerge(earliest)), 'UTC') AS first_event,
    toTimeZone(if(total_events = 0, NULL, maxMerge(latest)), 'UTC') AS last_event
FROM
(
    {rollup:begin}
    SELECT
        countState() AS events,
        uniqCombined64State(user_id) AS users,
        uniqCombined64State({session:Rollup}) AS visits,
        countIfState(event_name = 'video_heartbeat') AS heartbeats,
        sumState({watch_ms:Rollup}) AS watch_ms,
        uniqCombined64IfState(user_id, event_name = 'video_heartbeat') AS viewers,
        countIfState(event_name = 'search') AS search_events,
        minState(timestamp) AS earliest,
        maxState(timestamp) AS latest
    FROM {database:Identifier}.{table:Identifier}
    WHERE {range:Rollup}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
        {filters:And}
    {rollup:end}
)
