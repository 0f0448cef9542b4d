/*
title = "Top values"
description = """
Values of one property, most frequent first. A string is shown as its text, any other value as its JSON; events
without the property, or with null, are excluded."""
cache_seconds = 60
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
*/
SELECT
    value,
    count() AS events,
    uniqExact(user_id) AS unique_users,
    round(events / sum(events) OVER (), 6) AS share
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
        AND ({event_name:String} = '' OR event_name = {event_name:String})
        AND JSONHas(readable, {property:String})
)
WHERE kind != 'Null'
GROUP BY value
ORDER BY events DESC, value ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
