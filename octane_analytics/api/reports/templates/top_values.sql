/*
title = "Top values"
description = """
The commonest values of one property, most frequent first. A string counts as its text, anything else as its
JSON; events without the property, or with null, are left out."""
cache_seconds = 60
page_rows = 20

[parameters.property]
type = "String"
required = true
help = "The property's name, a key of `properties`."

[parameters.event_name]
type = "String"
help = "Only events of this name; absent for all."

[columns]
value = "The value as text."
events = "Events that have it."
unique_users = "Distinct users of these."
share = "events by all events that have the property, 6 decimals."
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
