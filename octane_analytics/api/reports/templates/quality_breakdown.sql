/*
title = "Quality by device, network and version"
description = """
Viewing and its quality for each value of `device`, `network_type` and `client_version`, most watched first: the
numbers of quality_of_experience by each of them, of which it has only some, read at once. Whole hours are
answered from the rollup `quality`."""
key = ["property", "value"]
cache_seconds = 60
has_exact = true
page_rows = 100

[parameters.values]
type = "UInt32"
default = 10
minimum = 1
maximum = 1000
help = "Most values of each property."

[rollup]
prefers = "quality"

[filters]
network_type = "quality_network_type"
client_version = "quality_client_version"
device = "quality_device"
country = "quality_country"

[columns]
property = "client_version, device or network_type."
value = "Value of the property as text; empty for events without it."
viewers = "Distinct users with a heartbeat; up to 4,096 exactly, above with an error of about 0.3 %, unless `exact`."
views = "Number of video_start events."
watch_time = "Time watched in seconds, to the millisecond."
stalled_share = "Share of buffering in the time of buffering and watching (0 to 1, 6 decimals); null if both are 0."
fatal_errors = "video_error events whose properties.fatal is true."
failure_share = "fatal_errors divided by views, 6 decimals; null without views."
startup_ms_p95 = "95th percentile of startup_ms in milliseconds; null without starts."

[types]
property = "String"
value = "String"
viewers = "UInt64"
views = "UInt64"
watch_time = "Float64"
stalled_share = "Nullable(Float64)"
fatal_errors = "UInt64"
failure_share = "Nullable(Float64)"
startup_ms_p95 = "Nullable(UInt64)"
*/
SELECT
    property,
    value,
    viewers,
    views,
    watched_ms / 1000 AS watch_time,
    if(stalled_ms + watched_ms = 0, NULL, round(stalled_ms / (stalled_ms + watched_ms), 6))
        AS stalled_share,
    fatal_errors,
    if(views = 0, NULL, round(fatal_errors / views, 6)) AS failure_share,
    -- Measured times are above 0; 0 is the quantile of none.
    nullIf(startup_p95, 0) AS startup_ms_p95
FROM
(
    SELECT
        pair.1 AS property,
        pair.2 AS value,
        uniqCombined64IfMerge(heartbeat_users) AS viewers,
        countIfMerge(start_events) AS views,
        sumMerge(watch_ms) AS watched_ms,
        sumMerge(buffer_ms) AS stalled_ms,
        countIfMerge(fatal_events) AS fatal_errors,
        toUInt64(quantilesExactLowIfMerge(0.5, 0.95)(startup_times)[2]) AS startup_p95
    FROM
    (
        {rollup:begin}
        SELECT
            {quality_network_type:Rollup} AS network_type,
            {quality_client_version:Rollup} AS client_version,
            {quality_device:Rollup} AS device,
            sumState({quality_watch_ms:Rollup}) AS watch_ms,
            sumState({quality_buffer_ms:Rollup}) AS buffer_ms,
            countIfState(event_name = 'video_start') AS start_events,
            countIfState({quality_is_fatal:Rollup}) AS fatal_events,
            uniqCombined64IfState(user_id, event_name = 'video_heartbeat') AS heartbeat_users,
            quantilesExactLowIfState(0.5, 0.95)(toUInt32({quality_startup_ms:Rollup}), {quality_startup_ms:Rollup} > 0)
                AS startup_times
        FROM {database:Identifier}.{table:Identifier}
        WHERE {range:Rollup}
            AND ({app_id:String} = '' OR app_id = {app_id:String})
            {filters:And}
            AND event_name IN ('video_heartbeat', 'video_start', 'video_buffering', 'video_error') -- events only
        GROUP BY network_type, client_version, device
        {rollup:end}
    )
    ARRAY JOIN
        [('network_type', network_type), ('client_version', client_version), ('device', device)] AS pair
    GROUP BY property, value
    -- A rollup has a row for hours without playback too.
    HAVING viewers + views + stalled_ms + fatal_errors > 0
)
ORDER BY property ASC, watch_time DESC, views DESC, value ASC
LIMIT {values:UInt32} BY property
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
