/*
title = "Retention"
description = """
Returning users by cohort. A cohort is the users whose first event `first_event` within the range falls on the
same day; each row shows how many of them have an event `return_event` `day_number` days later. Oldest cohort
first, days from 0. Days are calendar days of `timezone`. Only days that end by `to` are included, so that
every number is final; events before `from` are ignored, so earlier users count as new. Above `max_events`
events in the range, users are sampled; no rollup is used."""
key = ["cohort", "day_number"]
cache_seconds = 300
is_sampled = true
page_rows = 1000

[parameters.first_event]
type = "String"
help = "Event by which a user joins a cohort; absent for any event."

[parameters.return_event]
type = "String"
help = "Event that counts as a return; absent for any event."

[parameters.days]
type = "UInt8"
default = 7
minimum = 1
maximum = 90
help = "Number of days shown after the day of the cohort."

[parameters.timezone]
type = "String"
format = "timezone"
default = "UTC"
help = "IANA time zone of the calendar days."

[columns]
cohort = "Day of the users' first event."
cohort_users = "Distinct users of the cohort."
day_number = "Days since the day of the cohort; 0 is the same day."
returned_users = "Users of the cohort with a return_event on that day."
retention = "Share of cohort_users (0 to 1, 4 decimals)."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."

[types]
cohort = "Date"
cohort_users = "Nullable(UInt64)"
day_number = "UInt16"
returned_users = "Nullable(UInt64)"
retention = "Float64"
sample = "Nullable(Float64)"
*/
WITH
    {sample:begin}
    {first_event:String} = ''
    OR {return_event:String} = ''
    OR event_name IN ({first_event:String}, {return_event:String})
    {sample:end}
SELECT
    cohort,
    toUInt64(round(count() / {share:Sample})) AS cohort_users,
    day_number,
    toUInt64(round(countIf(has(return_days, cohort + day_number)) / {share:Sample}))
        AS returned_users,
    round(countIf(has(return_days, cohort + day_number)) / count(), 4) AS retention,
    {share:Sample} AS sample
FROM
(
    SELECT
        user_id,
        minIf(day, is_first) AS cohort,
        groupUniqArrayIf(day, is_return) AS return_days
    FROM
    (
        SELECT
            user_id,
            toDate(timestamp, {timezone:String}) AS day,
            {first_event:String} = '' OR event_name = {first_event:String} AS is_first,
            {return_event:String} = '' OR event_name = {return_event:String} AS is_return
        FROM {database:Identifier}.{table:Identifier}
        WHERE timestamp >= {from:DateTime('UTC')}
            AND timestamp < {to:DateTime('UTC')}
            AND ({app_id:String} = '' OR app_id = {app_id:String})
            {filters:And}
            AND {users:Sample}
            AND (
                {first_event:String} = ''
                OR {return_event:String} = ''
                OR event_name IN ({first_event:String}, {return_event:String})
            )
    )
    GROUP BY user_id
    HAVING countIf(is_first) > 0
)
ARRAY JOIN range({days:UInt8} + 1) AS day_number
WHERE toDateTime(cohort + day_number + 1, {timezone:String}) <= {to:DateTime('UTC')}
GROUP BY cohort, day_number
ORDER BY cohort ASC, day_number ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
