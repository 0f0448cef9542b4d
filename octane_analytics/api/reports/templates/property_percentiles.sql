/*
title = "Percentiles of a property"
description = """
Distribution of a numeric property per time bucket, oldest first. Only events in which the property is a JSON
number are counted; buckets without such events are included, with nulls. Buckets of a day begin at midnight
in `timezone`, shorter ones at multiples of their width since 1970-01-01T00:00:00Z. Above `max_events` events
in the range, users are sampled; no rollup is used."""
key = ["bucket"]
cache_seconds = 60
is_sampled = true
page_rows = 10000

[parameters.property]
type = "String"
required = true
help = "Name of the property, a key of `properties`."

[parameters.event_name]
type = "String"
help = "Only events of this name; absent for all."

[parameters.bucket_seconds]
type = "UInt32"
default = 3600
allowed = [60, 300, 900, 3600, 21600, 86400]
help = "Width of a bucket in seconds; 86400 is a calendar day, even if 23 or 25 hours long."

[parameters.timezone]
type = "String"
format = "timezone"
default = "UTC"
help = "IANA time zone of the calendar days."

[columns]
bucket = "Start of the bucket."
events = "Events in the bucket whose property is a number."
minimum = "Smallest value; null without events."
p50 = "50th percentile (lower median); null without events."
p90 = "90th percentile; null without events."
p95 = "95th percentile; null without events."
p99 = "99th percentile; null without events."
maximum = "Largest value; null without events."
average = "Arithmetic mean; null without events."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."

[types]
bucket = "DateTime"
events = "Nullable(UInt64)"
minimum = "Nullable(Float64)"
p50 = "Nullable(Float64)"
p90 = "Nullable(Float64)"
p95 = "Nullable(Float64)"
p99 = "Nullable(Float64)"
maximum = "Nullable(Float64)"
average = "Nullable(Float64)"
sample = "Nullable(Float64)"
*/
WITH
    {sample:begin}
    {event_name:String} = '' OR event_name = {event_name:String}
    {sample:end}
SELECT
    {start:Bucket} AS bucket,
    toUInt64(round(counted / {share:Sample})) AS events,
    minimum,
    p50,
    p90,
    p95,
    p99,
    maximum,
    average,
    {share:Sample} AS sample
FROM
(
    SELECT
        {number:Bucket} AS number,
        count() AS counted,
        minOrNull(measured) AS minimum,
        quantileExactLowOrNull(0.5)(measured) AS p50,
        quantileExactLowOrNull(0.9)(measured) AS p90,
        quantileExactLowOrNull(0.95)(measured) AS p95,
        quantileExactLowOrNull(0.99)(measured) AS p99,
        maxOrNull(measured) AS maximum,
        avgOrNull(measured) AS average
    FROM
    (
        SELECT
            {properties:JSON} AS readable,
            timestamp,
            -- The raw text of a string has quotes, so only numbers are converted.
            toFloat64OrNull(JSONExtractRaw(readable, {property:String})) AS found,
            assumeNotNull(found) AS measured
        FROM {database:Identifier}.{table:Identifier}
        WHERE timestamp >= {from:DateTime('UTC')}
            AND timestamp < {to:DateTime('UTC')}
            AND ({app_id:String} = '' OR app_id = {app_id:String})
            {filters:And}
            AND {users:Sample}
            AND ({event_name:String} = '' OR event_name = {event_name:String})
    )
    WHERE found IS NOT NULL AND isFinite(measured)
    GROUP BY number {totals:With}
    ORDER BY number ASC {fill:Bucket}
    LIMIT {limit:UInt32} OFFSET {offset:UInt32}
)
ORDER BY number ASC
