/*
title = "Quality over time"
description = """
Playback quality for each value of one property and bucket, oldest first and within a bucket most watched first:
quality_of_experience over time, with the buckets of playback_over_time. With `bucket_seconds` 0 the whole range
is one bucket: values as in quality_of_experience, which has more columns and reads more for them. Pairs without
events are left out.
Whole hours are answered from the rollup `quality`, if a bucket is an hour or longer, except by content_id and
stream_id, which read all events."""
key = ["bucket", "value"]
cache_seconds = 60
has_exact = true
page_rows = 10000

[parameters.by]
type = "String"
default = "network_type"
allowed = ["network_type", "client_version", "content_id", "stream_id", "device", "country", "app_id"]
help = "Property to group by; app_id is the field of the event."

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
value = "Value of the property as text."
viewers = "Distinct users with a heartbeat; up to 4,096 exactly, above with an error of about 0.3 %, unless `exact`."
views = "Number of video_start events."
watch_time = "Time watched in seconds, to the millisecond."
stalled_share = "Share of buffering in the time of buffering and watching (0 to 1, 6 decimals); null if both are 0."
fatal_errors = "video_error events whose properties.fatal is true."
failure_share = "fatal_errors divided by views, 6 decimals; null without views."
startup_ms_p95 = "95th percentile of startup_ms in milliseconds; null without starts."

[types]
bucket = "DateTime"
value = "String"
viewers = "UInt64"
views = "UInt64"
watch_time = "Float64"
stalled_share = "Nullable(Float64)"
fatal_errors = "UInt64"
failure_share = "Nullable(Float64)"
startup_ms_p95 = "Nullable(UInt64)"

[rollup]
hours = "{whole_hours:Bucket}"
*/
SELECT
    {start:Bucket} AS bucket,
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
        number,
        value,
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
            {rollup_number:Bucket} AS number,
            if({by:String} = 'app_id', app_id, {quality_value:Rollup}) AS value,
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
        GROUP BY number, value
        {rollup:end}
    )
    GROUP BY number, value
    -- A rollup has a row for hours without playback too.
    HAVING viewers + views + stalled_ms + fatal_errors > 0
)
ORDER BY number ASC, watch_time DESC, views DESC, value ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
