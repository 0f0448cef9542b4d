/*
title = "Playback errors"
description = """
`video_error` events by `properties.code`, most frequent first; events without a code are grouped under an empty
one. A view is defined as in `views`. An error is fatal if `properties.fatal` is true, which ends the view: the
event playbackFail of CTA-2066 and a playback failure of Mux Data. Above `max_events` events `video_error` and
`video_start` in the range, users are sampled; no rollup is used."""
key = ["code"]
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

[types]
code = "String"
occurrences = "Nullable(UInt64)"
views = "Nullable(UInt64)"
users = "Nullable(UInt64)"
fatal_share = "Float64"
first_seen = "Nullable(DateTime)"
last_seen = "Nullable(DateTime)"
versions = "Array(String)"
sample = "Nullable(Float64)"
*/
WITH
    {sample:begin}
    event_name IN ('video_error', 'video_start')
    {sample:end}
SELECT
    JSONExtractString(readable, 'code') AS code,
    toUInt64(round(count() / {share:Sample})) AS occurrences,
    toUInt64(round(uniqExact(view) / {share:Sample})) AS views,
    toUInt64(round(uniqExact(user_id) / {share:Sample})) AS users,
    round(countIf(is_fatal) / count(), 6) AS fatal_share,
    toTimeZone(minOrNull(timestamp), 'UTC') AS first_seen,
    toTimeZone(maxOrNull(timestamp), 'UTC') AS last_seen,
    arraySlice(arraySort(groupUniqArrayIf(1000)(version, version != '')), 1, 20) AS versions,
    {share:Sample} AS sample
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
GROUP BY code {totals:With}
ORDER BY count() DESC, code ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
