/*
title = "Events over time"
description = """
Events and users per bucket, oldest first. Buckets begin at multiples of their width since 1970-01-01T00:00:00Z
(days begin at midnight UTC); buckets without events are there, with zeros. The first and the last count
only what lies in the range."""

[parameters.bucket_seconds]
type = "UInt32"
default = 3600
allowed = [60, 300, 900, 3600, 21600, 86400]
help = "Width of a bucket in seconds."

[parameters.event_name]
type = "String"
help = "Only events of this name; absent for all."

[parameters.limit]
type = "UInt32"
default = 10000
minimum = 1
maximum = 10000
help = "Rows at most; the earliest are kept."

[columns]
bucket = "The bucket's first second."
events = "Events in it."
unique_users = "Distinct user_id in it."
*/
SELECT
    toDateTime(intDiv(toUInt32(timestamp), {bucket_seconds:UInt32}) * {bucket_seconds:UInt32}, 'UTC')
        AS bucket,
    count() AS events,
    uniqExact(user_id) AS unique_users
FROM {database:Identifier}.{table:Identifier}
WHERE timestamp >= {from:DateTime('UTC')}
    AND timestamp < {to:DateTime('UTC')}
    AND ({app_id:String} = '' OR app_id = {app_id:String})
    AND ({event_name:String} = '' OR event_name = {event_name:String})
GROUP BY bucket
ORDER BY bucket ASC
    WITH FILL
    FROM toDateTime(
        intDiv(toUInt32({from:DateTime('UTC')}), {bucket_seconds:UInt32}) * {bucket_seconds:UInt32}, 'UTC'
    )
    TO {to:DateTime('UTC')}
    STEP {bucket_seconds:UInt32}
LIMIT {limit:UInt32}
