/*
title = "Playback errors"
description = """
`video_error` events by `properties.code`, most frequent first; events without a code are grouped under an empty
one. A view is defined as in `views`. An error is fatal if `properties.fatal` is true, which ends the view: the
Playback Failure of Mux Data and the Video Playback Failure of CTA-2066. Above `max_events` events
`video_error` and `video_start` in the range, users are sampled; no rollup is used."""
cache_seconds = 60
is_sampled = true
page_rows = 100

[columns]
code = "Code of the error as text."
occurrences = "Number of video_error events."
views = "Views with the error."
users = "Distinct users with the error."
fatal_share = "Share of occurrences that are fatal (0 to 1, 6 decimals)."
first_seen = "Time of the earliest occurrence in the range."
last_seen = "Time of the latest occurrence in the range."
versions = "player_version, else client_version, of the occurrences: the first 20, sorted as text."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."
*/
WITH
    (
        SELECT count()
        FROM {database:Identifier}.{table:Identifier}
        WHERE {sample:Float64} = 0
            AND timestamp >= {from:DateTime('UTC')}
            AND timestamp < {to:DateTime('UTC')}
            AND ({app_id:String} = '' OR app_id = {app_id:String})
            AND event_name IN ('video_error', 'video_start')
    ) AS matching_events,
    if(
        {sample:Float64} > 0,
        {sample:Float64},
        least(1, {max_events:UInt64} / greatest(matching_events, 1))
    ) AS wanted,
    -- Ten-thousandths of the users, by a hash: a user is read with all events or not at all.
    toUInt32(ceil(wanted * 10000)) AS sampled
SELECT
    JSONExtractString(readable, 'code') AS code,
    toUInt64(round(count() / (sampled / 10000))) AS occurrences,
    toUInt64(round(uniqExact(view) / (sampled / 10000))) AS views,
    toUInt64(round(uniqExact(user_id) / (sampled / 10000))) AS users,
    round(countIf(is_fatal) / count(), 6) AS fatal_share,
    toTimeZone(min(timestamp), 'UTC') AS first_seen,
    toTimeZone(max(timestamp), 'UTC') AS last_seen,
    arraySlice(arraySort(groupUniqArrayIf(1000)(version, version != '')), 1, 20) AS versions,
    sampled / 10000 AS sample
FROM
(
    SELECT
        *,
        coalesce(
            nullIf(JSONExtractString(readable, 'player_version'), ''),
            JSONExtractString(readable, 'client_version')
        ) AS version
    FROM {playback:Source}
    WHERE event_name = 'video_error'
)
GROUP BY code
ORDER BY count() DESC, code ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
