/*
title = "Funnel"
description = """
Number of users who reached each step of a sequence of events, one row per step. A user reaches a step by its
event in a later second than that of the previous step (other events may occur in between), and within
`window_seconds` of the first step's event. For each user the attempt with the most steps counts. Above
`max_events` events in the range, users are sampled; no rollup is used."""
key = ["step"]
cache_seconds = 60
is_sampled = true

[parameters.steps]
type = "Array(String)"
required = true
minimum = 2
maximum = 10
help = "Names of the events, in order."

[parameters.window_seconds]
type = "UInt32"
default = 86400
minimum = 1
maximum = 7776000
help = "Maximum time from the first to the last step, in seconds."

[columns]
step = "Number of the step, from 1."
event_name = "Event of the step."
users = "Distinct users who reached the step."
of_first = "Share of the first step's users (0 to 1, 4 decimals); null if it had none."
of_previous = "Share of the previous step's users (0 to 1, 4 decimals); null if it had none."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."

[types]
step = "UInt64"
event_name = "String"
users = "Nullable(UInt64)"
of_first = "Nullable(Float64)"
of_previous = "Nullable(Float64)"
sample = "Nullable(Float64)"
*/
WITH
    {sample:begin}
    event_name IN {steps:Array(String)}
    {sample:end}
SELECT
    step,
    {steps:Array(String)}[step] AS event_name,
    toUInt64(round(reached[step] / {share:Sample})) AS users,
    if(reached[1] = 0, NULL, round(reached[step] / reached[1], 4)) AS of_first,
    if(reached[greatest(step - 1, 1)] = 0, NULL, round(reached[step] / reached[greatest(step - 1, 1)], 4))
        AS of_previous,
    {share:Sample} AS sample
FROM
(
    SELECT sumForEach(arrayMap(each -> toUInt64(depth >= each), range(1, 11))) AS reached
    FROM
    (
        SELECT
            user_id,
            -- In sixteenths of a second, with later steps first within a second: a step never follows
            -- another within the same second, and an event of two steps counts as either.
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
                {filters:And}
                AND {users:Sample}
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
