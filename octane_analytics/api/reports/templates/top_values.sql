/*
title = "Top values"
description = """
Values of one property, most frequent first. A string is shown as its text, any other value as its JSON;
events without the property, or with null, are excluded. Above `max_events` events in the range, users are
sampled; no rollup is used."""
key = ["value"]
cache_seconds = 60
is_sampled = true
page_rows = 20

[parameters.property]
type = "String"
required = true
help = "Name of the property, a key of `properties`."

[parameters.event_name]
type = "String"
help = "Only events of this name; absent for all."

[columns]
value = "Value as text."
events = "Events with the value."
unique_users = "Distinct users of these events."
share = "Share of all events with the property (0 to 1, 6 decimals)."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."

[types]
value = "String"
events = "Nullable(UInt64)"
unique_users = "Nullable(UInt64)"
share = "Float64"
sample = "Nullable(Float64)"
*/
WITH
    {sample:begin}
    {event_name:String} = '' OR event_name = {event_name:String}
    {sample:end}
SELECT
    value,
    toUInt64(round(count() / {share:Sample})) AS events,
    toUInt64(round(uniqExact(user_id) / {share:Sample})) AS unique_users,
    round(count() / sum(count()) OVER (), 6) AS share,
    {share:Sample} AS sample
FROM
(
    SELECT
        {properties:JSON} AS readable,
        user_id,
        JSONType(readable, {property:String}) AS kind,
        if(
            kind = 'String',
            JSONExtractString(readable, {property:String}),
            JSONExtractRaw(readable, {property:String})
        ) AS value
    FROM {database:Identifier}.{table:Identifier}
    WHERE timestamp >= {from:DateTime('UTC')}
        AND timestamp < {to:DateTime('UTC')}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
        {filters:And}
        AND {users:Sample}
        AND ({event_name:String} = '' OR event_name = {event_name:String})
        AND JSONHas(readable, {property:String})
)
WHERE kind != 'Null'
GROUP BY value
ORDER BY count() DESC, value ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
