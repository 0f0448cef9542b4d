/*
title = "Concurrent viewers"
description = """
Distinct users who watch, per bucket, oldest first. A heartbeat covers the time from its timestamp less its
`watch_time` up to its timestamp, and a user watches in every bucket that one of his heartbeats touches;
heartbeats up to five minutes after `to` are read for the time before it. Concurrent Plays of Conviva is the
highest number of sessions active at one moment of an interval, so it is lower than the users of a bucket unless
buckets are short. The average minute audience is, as in television, the time watched divided by the length of the
range. Buckets begin at multiples of their width since 1970-01-01T00:00:00Z. Above `max_events` heartbeats in the
range, users are sampled; no rollup is used."""
key = ["bucket"]
cache_seconds = 15
is_sampled = true
page_rows = 1440

[parameters.bucket_seconds]
type = "UInt32"
default = 60
allowed = [1, 10, 60, 300, 3600]
help = "Width of a bucket in seconds."

[columns]
bucket = "Start of the bucket."
viewers = "Distinct users with a heartbeat that covers a part of the bucket."
peak_viewers = "Highest number of viewers of any bucket of the range."
average_minute_audience = "Time watched in the range divided by the length of the range, 3 decimals: viewers at an average moment."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."

[types]
bucket = "DateTime"
viewers = "Nullable(UInt64)"
peak_viewers = "Nullable(UInt64)"
average_minute_audience = "Nullable(Float64)"
sample = "Nullable(Float64)"
*/
WITH
    {sample:begin}
    event_name = 'video_heartbeat'
    {sample:end}
SELECT
    toDateTime(toUInt32(number * {bucket_seconds:UInt32}), 'UTC') AS bucket,
    toUInt64(round(watching / {share:Sample})) AS viewers,
    toUInt64(round(max(watching) OVER () / {share:Sample})) AS peak_viewers,
    round(
        sum(watched_ms) OVER () / {share:Sample}
            / (1000 * (toUnixTimestamp({to:DateTime('UTC')}) - toUnixTimestamp({from:DateTime('UTC')}))),
        3
    ) AS average_minute_audience,
    {share:Sample} AS sample
FROM
(
    SELECT number, watching, watched_ms
    FROM
    (
        SELECT
            number,
            toInt64(sum(sum(change)) OVER (ORDER BY number ASC)) AS watching,
            sum(ms) AS watched_ms
        FROM
        (
            -- Overlapping and adjoining buckets of a user, joined: one arrival and one departure.
            SELECT
                viewer,
                island,
                sum(covered_ms) AS island_ms,
                [(min(first), 1, island_ms), (max(last) + 1, -1, 0)] AS changes
            FROM
            (
                SELECT
                    *,
                    sum(is_apart) OVER (
                        PARTITION BY viewer ORDER BY first ASC, last ASC
                        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                    ) AS island
                FROM
                (
                    SELECT
                        *,
                        first > max(last) OVER (
                            PARTITION BY viewer ORDER BY first ASC, last ASC
                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                        ) AS is_apart
                    FROM
                    (
                        -- A hash of 128 bits: shorter than users, and no two have the same.
                        SELECT viewer, first, last, sum(touched_ms) AS covered_ms
                        FROM
                        (
                            SELECT
                                sipHash128(user_id) AS viewer,
                                {heartbeat_ms:Source} AS watch_ms,
                                1000 * toInt64(toUnixTimestamp(timestamp)) AS end_ms,
                                1000 * toInt64(toUnixTimestamp({from:DateTime('UTC')})) AS from_ms,
                                1000 * toInt64(toUnixTimestamp({to:DateTime('UTC')})) AS to_ms,
                                greatest(end_ms - watch_ms, from_ms) AS seen_from_ms,
                                greatest(least(end_ms, to_ms) - seen_from_ms, 0) AS touched_ms,
                                intDiv(seen_from_ms, 1000 * {bucket_seconds:UInt32}) AS first,
                                intDiv(least(end_ms, to_ms - 1), 1000 * {bucket_seconds:UInt32}) AS last
                            FROM {database:Identifier}.{table:Identifier}
                            PREWHERE event_name = 'video_heartbeat'
                                AND timestamp >= {from:DateTime('UTC')}
                                AND toUnixTimestamp(timestamp) < toUnixTimestamp({to:DateTime('UTC')}) + 300
                                AND ({app_id:String} = '' OR app_id = {app_id:String})
                                AND {users:Sample}
                            WHERE watch_ms > 0 AND seen_from_ms < to_ms {filters:And}
                        )
                        GROUP BY viewer, first, last
                    )
                )
            )
            GROUP BY viewer, island
        )
        ARRAY JOIN changes.1 AS number, changes.2 AS change, changes.3 AS ms
        GROUP BY number
    )
    WHERE number <= intDiv(toUnixTimestamp({to:DateTime('UTC')}) - 1, {bucket_seconds:UInt32})
    ORDER BY number ASC
        WITH FILL
        FROM toInt64(intDiv(toUnixTimestamp({from:DateTime('UTC')}), {bucket_seconds:UInt32}))
        -- Fills only up to the end of the page: a long range of short buckets has millions.
        TO toInt64(least(
            intDiv(toUnixTimestamp({to:DateTime('UTC')}) - 1, {bucket_seconds:UInt32}) + 1,
            intDiv(toUnixTimestamp({from:DateTime('UTC')}), {bucket_seconds:UInt32})
                + {offset:UInt32} + {limit:UInt32}
        ))
    INTERPOLATE (watching AS watching)
)
ORDER BY number ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
