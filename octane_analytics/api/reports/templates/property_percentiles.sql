/*
title = "Percentiles of a property"
description = """
How a numeric property is spread, per bucket of time, oldest first. It counts where it is a JSON number;
events without it are left out, and buckets without any are there, empty. Buckets of a day begin at midnight
in `timezone`, shorter ones at multiples of their width since 1970-01-01T00:00:00Z."""
cache_seconds = 60
page_rows = 10000

[parameters.property]
type = "String"
required = true
help = "The property's name, a key of `properties`."

[parameters.event_name]
type = "String"
help = "Only events of this name; absent for all."

[parameters.bucket_seconds]
type = "UInt32"
default = 3600
allowed = [60, 300, 900, 3600, 21600, 86400]
help = "Width of a bucket in seconds; 86400 is a calendar day, however long."

[parameters.timezone]
type = "String"
format = "timezone"
default = "UTC"
help = "IANA time zone in which days begin."

[columns]
bucket = "The bucket's first second."
events = "Events in it that have the number."
minimum = "Their smallest; null without any."
p50 = "Half of them are no larger; null without any."
p90 = "90 of 100 are no larger; null without any."
p95 = "95 of 100 are no larger; null without any."
p99 = "99 of 100 are no larger; null without any."
maximum = "Their largest; null without any."
average = "Their mean; null without any."
*/
SELECT
    if(
        {bucket_seconds:UInt32} = 86400,
        toDateTime(toDate(number), {timezone:String}),
        toDateTime(toUInt32(number * {bucket_seconds:UInt32}), {timezone:String})
    ) AS bucket,
    events,
    minimum,
    p50,
    p90,
    p95,
    p99,
    maximum,
    average
FROM
(
    SELECT
        -- Days have no fixed width, so buckets are numbered, and the numbers are filled up.
        if(
            {bucket_seconds:UInt32} = 86400,
            toUInt32(toDate(timestamp, {timezone:String})),
            intDiv(toUInt32(timestamp), {bucket_seconds:UInt32})
        ) AS number,
        count() AS events,
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
            -- The raw text keeps a string's quotes, so that only numbers survive.
            toFloat64OrNull(JSONExtractRaw(readable, {property:String})) AS found,
            assumeNotNull(found) AS measured
        FROM {database:Identifier}.{table:Identifier}
        WHERE timestamp >= {from:DateTime('UTC')}
            AND timestamp < {to:DateTime('UTC')}
            AND ({app_id:String} = '' OR app_id = {app_id:String})
            AND ({event_name:String} = '' OR event_name = {event_name:String})
    )
    WHERE found IS NOT NULL AND isFinite(measured)
    GROUP BY number
    ORDER BY number ASC
        WITH FILL
        FROM if(
            {bucket_seconds:UInt32} = 86400,
            toUInt32(toDate({from:DateTime('UTC')}, {timezone:String})),
            intDiv(toUInt32({from:DateTime('UTC')}), {bucket_seconds:UInt32})
        )
        -- No further than the page: a long range of short buckets has millions.
        TO least(
            if(
                {bucket_seconds:UInt32} = 86400,
                toUInt32(toDate({to:DateTime('UTC')} - 1, {timezone:String})),
                intDiv(toUInt32({to:DateTime('UTC')} - 1), {bucket_seconds:UInt32})
            ) + 1,
            if(
                {bucket_seconds:UInt32} = 86400,
                toUInt32(toDate({from:DateTime('UTC')}, {timezone:String})),
                intDiv(toUInt32({from:DateTime('UTC')}), {bucket_seconds:UInt32})
            ) + {offset:UInt32} + {limit:UInt32}
        )
    LIMIT {limit:UInt32} OFFSET {offset:UInt32}
)
ORDER BY number ASC
