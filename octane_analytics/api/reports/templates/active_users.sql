/*
title = "Active users"
description = """
Distinct users per calendar day (of `timezone`), oldest first, each with the distinct users of the 7 and 30
days that end with it. Every day that overlaps the range is included and counted from its midnight; events at
or after `to` are not counted. Whole hours are answered from the rollup `users`; an hour of UTC in which a day
of `timezone` begins is read from its events, and with `exact` every event."""
key = ["day"]
cache_seconds = 300
page_rows = 100

[parameters.timezone]
type = "String"
format = "timezone"
default = "UTC"
help = "IANA time zone of the calendar days."

[parameters.exact]
type = "Bool"
default = false
help = "Count distinct users exactly, which reads all events; the default is exact up to 4,096 users."

[columns]
day = "Calendar day."
daily_users = "Distinct user_id on the day; up to 4,096 exactly, above with an error of about 0.3 %, unless `exact`."
weekly_users = "Distinct user_id on the day and the 6 before it, as exact as daily_users."
monthly_users = "Distinct user_id on the day and the 29 before it, as exact as daily_users."
stickiness = "daily_users divided by monthly_users, 4 decimals; null if monthly_users is 0."

[types]
day = "Date"
daily_users = "UInt64"
weekly_users = "UInt64"
monthly_users = "UInt64"
stickiness = "Nullable(Float64)"

[rollup]
prefers = "users"
start = '''toDateTime(toDate({from:DateTime('UTC')}, {timezone:String}) - 29, {timezone:String})'''
hours = '''
NOT arrayExists(
    day -> toUnixTimestamp(toDateTime(day, {timezone:String})) % 3600 != 0,
    arrayMap(
        n -> toDate({from:DateTime('UTC')}, {timezone:String}) - 29 + n,
        range(toUInt32(
            dateDiff('day', {from:DateTime('UTC')}, {to:DateTime('UTC')}, {timezone:String}) + 31
        ))
    )
) OR toDate({hour}, {timezone:String}) = toDate({hour} + 3599, {timezone:String})'''
*/
WITH
    toDate({from:DateTime('UTC')}, {timezone:String}) AS first_day,
    toDate({to:DateTime('UTC')} - 1, {timezone:String}) AS last_day,
    first_day - 29 AS origin
SELECT
    day,
    sum(daily) AS daily_users,
    sum(weekly) AS weekly_users,
    sum(monthly) AS monthly_users,
    if(monthly_users = 0, NULL, round(daily_users / monthly_users, 4)) AS stickiness
FROM
(
    SELECT
        active_day + days_later AS day,
        uniqCombined64MergeIf(users, days_later = 0) AS daily,
        uniqCombined64MergeIf(users, days_later < 7) AS weekly,
        uniqCombined64Merge(users) AS monthly
    FROM
    (
        SELECT active_day, uniqCombined64MergeState(hourly) AS users
        FROM
        (
            {rollup:begin}
            SELECT
                toDate({time:Rollup}, {timezone:String}) AS active_day,
                uniqCombined64State(user_id) AS hourly
            FROM {database:Identifier}.{table:Identifier}
            WHERE {range:Rollup}
                AND NOT {exact:Bool}
                AND ({app_id:String} = '' OR app_id = {app_id:String})
                {filters:And}
            GROUP BY active_day
            {rollup:end}
        )
        GROUP BY active_day
    )
    ARRAY JOIN range(30) AS days_later
    WHERE day >= first_day AND day <= last_day
    GROUP BY day
    UNION ALL
    -- Exactly: the users of a chunk of days have a bit for each day, and for each day before the chunk
    -- that its months include.
    SELECT
        origin + 29 + chunk * 64 + number AS day,
        sum(bitAnd(bitShiftRight(days, number + 29), 1) != 0) AS daily,
        sum(bitAnd(bitShiftRight(days, number + 23), 127) != 0) AS weekly,
        sum(bitAnd(bitShiftRight(days, number), 1073741823) != 0) AS monthly
    FROM
    (
        SELECT chunk, groupBitOr(bitShiftLeft(toUInt128(1), toUInt8(offset - chunk * 64))) AS days
        FROM
        (
            SELECT DISTINCT
                user_id,
                toUInt32(toDate(timestamp, {timezone:String}) - origin) AS offset
            FROM {database:Identifier}.{table:Identifier}
            -- toDateTime of a date is its midnight, also for days of 23 hours.
            WHERE timestamp >= toDateTime(origin, {timezone:String})
                AND timestamp < {to:DateTime('UTC')}
                AND {exact:Bool}
                AND ({app_id:String} = '' OR app_id = {app_id:String})
                {filters:And}
        )
        ARRAY JOIN range(intDiv(toUInt32(greatest(offset, 29) - 29), 64), intDiv(offset, 64) + 1) AS chunk
        GROUP BY user_id, chunk
    )
    ARRAY JOIN range(64) AS number
    WHERE day <= last_day
    GROUP BY day
)
GROUP BY day
ORDER BY day ASC
    WITH FILL
    FROM toDate({from:DateTime('UTC')}, {timezone:String})
    TO toDate({to:DateTime('UTC')} - 1, {timezone:String}) + 1
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
