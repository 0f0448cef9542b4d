/*
title = "Funnel"
description = """
How many users got how far through events in a given order, a row for each step. A user has reached a step
with its event at a later second than the step before (other events may lie between), and within
`window_seconds` of the first step's event. The best of all a user's attempts counts."""
cache_seconds = 60

[parameters.steps]
type = "Array(String)"
required = true
minimum = 2
maximum = 10
help = "The events' names in their order."

[parameters.window_seconds]
type = "UInt32"
default = 86400
minimum = 1
maximum = 7776000
help = "How long after the first step the last may be."

[columns]
step = "1 is the first."
event_name = "Its event."
users = "Distinct users who reached it."
of_first = "users by the first step's users, 4 decimals; null without any."
of_previous = "users by the step before's users, 4 decimals; null without any."
*/
SELECT
    step,
    {steps:Array(String)}[step] AS event_name,
    reached[step] AS users,
    if(reached[1] = 0, NULL, round(users / reached[1], 4)) AS of_first,
    if(reached[greatest(step - 1, 1)] = 0, NULL, round(users / reached[greatest(step - 1, 1)], 4))
        AS of_previous
FROM
(
    SELECT sumForEach(arrayMap(each -> toUInt64(depth >= each), range(1, 11))) AS reached
    FROM
    (
        SELECT
            user_id,
            -- In sixteenths of a second, later steps of one second first: then a step never follows
            -- another within the same second, and an event that is two of the steps counts as either.
            windowFunnel({window_seconds:UInt32} * 16)(
                toUInt64(toUInt64(timestamp) * 16 + 15 - step),
                step = 1,
                step = 2,
                step = 3,
                step = 4,
                step = 5,
                step = 6,
                step = 7,
                step = 8,
                step = 9,
                step = 10
            ) AS depth
        FROM
        (
            SELECT DISTINCT user_id, timestamp, event_name
            FROM {database:Identifier}.{table:Identifier}
            WHERE event_name IN {steps:Array(String)}
                AND timestamp >= {from:DateTime('UTC')}
                AND timestamp < {to:DateTime('UTC')}
                AND ({app_id:String} = '' OR app_id = {app_id:String})
        )
        ARRAY JOIN arrayFilter(
            each -> {steps:Array(String)}[each] = event_name,
            range(1, length({steps:Array(String)}) + 1)
        ) AS step
        GROUP BY user_id
    )
)
ARRAY JOIN range(1, length({steps:Array(String)}) + 1) AS step
ORDER BY step ASC
