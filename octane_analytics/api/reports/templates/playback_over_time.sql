/*
title = "Playback over time"
description = """
Viewing and its quality per bucket, oldest first, from `video_start`, `video_heartbeat`, `video_buffering` and
`video_error` events. Buckets of a day begin at midnight in `timezone`, shorter ones at multiples of their width
since 1970-01-01T00:00:00Z; buckets without events are included with zeros. With `bucket_seconds` 0 the whole
range is one bucket, so that a total is defined as its parts are. Values are counted as in
quality_of_experience. Whole hours are answered from the rollup `quality`, if a bucket is an hour or longer."""
key = ["bucket"]
cache_seconds = 30
has_exact = true
page_rows = 10000

[parameters.bucket_seconds]
type = "UInt32"
default = 3600
allowed = [0, 60, 300, 900, 3600, 21600, 86400]
help = "Width of a bucket in seconds; 86400 is a calendar day, even if 23 or 25 hours long; 0 the whole range."

[parameters.timezone]
type = "String"
format = "timezone"
default = "UTC"
help = "IANA time zone of the calendar days."

[filters]
network_type = "quality_network_type"
client_version = "quality_client_version"
device = "quality_device"
country = "quality_country"

[columns]
bucket = "Start of the bucket; of the range, if it is one bucket."
viewers = "Distinct users with a heartbeat; up to 4,096 exactly, above with an error of about 0.3 %, unless `exact`."
views = "Number of video_start events."
watch_time = "Time watched in seconds, to the millisecond."
watch_time_per_view = "watch_time in seconds per view, 3 decimals; null without views."
stalled_share = "Share of buffering in the time of buffering and watching (0 to 1, 6 decimals); null if both are 0."
errors = "Number of video_error events."
fatal_errors = "video_error events whose properties.fatal is true."
failure_share = "fatal_errors divided by views, 6 decimals; null without views."
startup_ms_median = "Median of startup_ms in milliseconds; null without starts."
startup_ms_p95 = "95th percentile of startup_ms in milliseconds; null without starts."

[types]
bucket = "DateTime"
viewers = "UInt64"
views = "UInt64"
watch_time = "Float64"
watch_time_per_view = "Nullable(Float64)"
stalled_share = "Nullable(Float64)"
errors = "UInt64"
fatal_errors = "UInt64"
failure_share = "Nullable(Float64)"
startup_ms_median = "Nullable(UInt64)"
startup_ms_p95 = "Nullable(UInt64)"

[rollup]
hours = "{whole_hours:Bucket}"
*/
SELECT
    {start:Bucket} AS bucket,
    viewers,
    views,
    watched_ms / 1000 AS watch_time,
    if(views = 0, NULL, round(watch_time / views, 3)) AS watch_time_per_view,
    if(stalled_ms + watched_ms = 0, NULL, round(stalled_ms / (stalled_ms + watched_ms), 6))
        AS stalled_share,
    errors,
    fatal_errors,
    if(views = 0, NULL, round(fatal_errors / views, 6)) AS failure_share,
    -- Measured times are above 0; 0 is the quantile of none.
    nullIf(startup_p50, 0) AS startup_ms_median,
    nullIf(startup_p95, 0) AS startup_ms_p95
FROM
(
    SELECT
        number,
        uniqCombined64IfMerge(heartbeat_users) AS viewers,
        countIfMerge(start_events) AS views,
        sumMerge(watch_ms) AS watched_ms,
        sumMerge(buffer_ms) AS stalled_ms,
        countIfMerge(error_events) AS errors,
        countIfMerge(fatal_events) AS fatal_errors,
        toUInt64(quantilesExactLowIfMerge(0.5, 0.95)(startup_times)[1]) AS startup_p50,
        toUInt64(quantilesExactLowIfMerge(0.5, 0.95)(startup_times)[2]) AS startup_p95
    FROM
    (
        {rollup:begin}
        SELECT
            {rollup_number:Bucket} AS number,
            sumState({quality_watch_ms:Rollup}) AS watch_ms,
            sumState({quality_buffer_ms:Rollup}) AS buffer_ms,
            countIfState(event_name = 'video_start') AS start_events,
            countIfState(event_name = 'video_error') AS error_events,
            countIfState({quality_is_fatal:Rollup}) AS fatal_events,
            uniqCombined64IfState(user_id, event_name = 'video_heartbeat') AS heartbeat_users,
            quantilesExactLowIfState(0.5, 0.95)(toUInt32({quality_startup_ms:Rollup}), {quality_startup_ms:Rollup} > 0)
                AS startup_times
        FROM {database:Identifier}.{table:Identifier}
        WHERE {range:Rollup}
            AND ({app_id:String} = '' OR app_id = {app_id:String})
            {filters:And}
            AND event_name IN ('video_heartbeat', 'video_start', 'video_buffering', 'video_error') -- events only
        GROUP BY number
        {rollup:end}
    )
    GROUP BY number {totals:With}
    ORDER BY number ASC {fill:Bucket}
    LIMIT {limit:UInt32} OFFSET {offset:UInt32}
)
ORDER BY number ASC
