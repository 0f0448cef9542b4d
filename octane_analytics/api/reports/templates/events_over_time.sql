/*
title = "Events over time"
description = """
Events and users per bucket, oldest first. Buckets of a day begin at midnight in `timezone`, shorter ones at
multiples of their width since 1970-01-01T00:00:00Z; buckets without events are included with zeros. The first
and the last bucket count only events within the range. Whole hours are answered from the rollup `users` or
`totals` (with `event_name` only from `totals`), if a bucket is an hour or longer. An hour of UTC in which a
day of `timezone` begins is read from its events."""
key = ["bucket"]
cache_seconds = 30
has_exact = true
page_rows = 10000

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

[parameters.event_name]
type = "String"
help = "Only events of this name; absent for all."

[columns]
bucket = "Start of the bucket."
events = "Events in the bucket."
unique_users = "Distinct user_id in the bucket; up to 4,096 exactly, above with an error of about 0.3 %, unless `exact`."

[types]
bucket = "DateTime"
events = "UInt64"
unique_users = "UInt64"

[rollup]
hours = "{whole_hours:Bucket}"
*/
SELECT
    {start:Bucket} AS bucket,
    events,
    unique_users
FROM
(
    SELECT
        number,
        countMerge(event_counts) AS events,
        uniqCombined64Merge(users) AS unique_users
    FROM
    (
        {rollup:begin}
        SELECT
            {rollup_number:Bucket} AS number,
            countState() AS event_counts,
            uniqCombined64State(user_id) AS users
        FROM {database:Identifier}.{table:Identifier}
        WHERE {range:Rollup}
            AND ({app_id:String} = '' OR app_id = {app_id:String})
            {filters:And}
            AND ({event_name:String} = '' OR event_name = {event_name:String})
        GROUP BY number
        {rollup:end}
    )
    GROUP BY number {totals:With}
    ORDER BY number ASC {fill:Bucket}
    LIMIT {limit:UInt32} OFFSET {offset:UInt32}
)
ORDER BY number ASC
