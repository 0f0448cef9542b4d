/*
title = "Retention"
description = """
Of the users who first came (with an event `first_event`, within the range) on a day, how many came back
(with an event `return_event`) on each of the days after it. Oldest cohort first, every day from 0 on. Days
are those of `timezone`. Only days that end by `to` are shown, so that no number is still growing; events
before `from` are not looked at, so who came earlier counts as new."""
cache_seconds = 300
page_rows = 1000

[parameters.first_event]
type = "String"
help = "The event that makes a user part of a cohort; absent for any."

[parameters.return_event]
type = "String"
help = "The event that counts as coming back; absent for any."

[parameters.days]
type = "UInt8"
default = 7
minimum = 1
maximum = 90
help = "How many days after the cohort's are shown."

[parameters.timezone]
type = "String"
format = "timezone"
default = "UTC"
help = "IANA time zone in which days begin."

[columns]
cohort = "The day on which they first came."
cohort_users = "Distinct users who first came on it."
day_number = "Days since then; 0 is the same day."
returned_users = "Those of them with a return_event on that day."
retention = "returned_users by cohort_users, 4 decimals."
*/
SELECT
    cohort,
    uniqExact(user_id) AS cohort_users,
    day_number,
    uniqExactIf(user_id, has(return_days, cohort + day_number)) AS returned_users,
    round(returned_users / cohort_users, 4) AS retention
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
