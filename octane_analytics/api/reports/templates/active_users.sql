/*
title = "Active users"
description = """
Distinct users per calendar day (of `timezone`), oldest first, each with the distinct users of the 7 and 30
days that end with it. Every day that overlaps the range is included and counted from its midnight; events at
or after `to` are not counted."""
cache_seconds = 300
page_rows = 100

[parameters.timezone]
type = "String"
format = "timezone"
default = "UTC"
help = "IANA time zone of the calendar days."

[columns]
day = "Calendar day."
daily_users = "Distinct user_id on the day."
weekly_users = "Distinct user_id on the day and the 6 before it."
monthly_users = "Distinct user_id on the day and the 29 before it."
stickiness = "daily_users divided by monthly_users, 4 decimals; null if monthly_users is 0."
*/
SELECT
    active_day + days_later AS day,
    uniqExactIf(user_id, days_later = 0) AS daily_users,
    uniqExactIf(user_id, days_later < 7) AS weekly_users,
    uniqExact(user_id) AS monthly_users,
    if(monthly_users = 0, NULL, round(daily_users / monthly_users, 4)) AS stickiness
FROM
(
    SELECT DISTINCT
        toDate(timestamp, {timezone:String}) AS active_day,
        user_id
    FROM {database:Identifier}.{table:Identifier}
    -- toDateTime of a date is its midnight, also for days of 23 hours.
    WHERE timestamp >= toDateTime(toDate({from:DateTime('UTC')}, {timezone:String}) - 29, {timezone:String})
        AND timestamp < {to:DateTime('UTC')}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
)
ARRAY JOIN range(30) AS days_later
WHERE day >= toDate({from:DateTime('UTC')}, {timezone:String})
    AND day <= toDate({to:DateTime('UTC')} - 1, {timezone:String})
GROUP BY day
ORDER BY day ASC
    WITH FILL
    FROM toDate({from:DateTime('UTC')}, {timezone:String})
    TO toDate({to:DateTime('UTC')} - 1, {timezone:String}) + 1
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
