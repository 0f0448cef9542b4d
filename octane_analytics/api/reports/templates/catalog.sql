/*
title = "Catalog of events"
description = """
Names of events and of their properties seen in the range, with counts, types and examples: most frequent events
first, each with a row for the event itself (an empty `property`) and one for each property. Above `max_events`
events in the range, users are sampled; no rollup is used."""
cache_seconds = 300
is_sampled = true
max_events = 500000
page_rows = 1000

[parameters.event_name]
type = "String"
help = "Only events of this name; absent for all."

[columns]
event_name = "Name of the event."
property = "Key in `properties`; empty in the row of the event itself."
events = "Number of events, or of those with the property."
share = "Share of the events of the name that have the property (0 to 1, 6 decimals)."
types = "JSON types of its values, sorted: array, boolean, null, number, object, string."
examples = "Least and greatest value by the order of their JSON text, each cut to 100 characters."
first_seen = "Time of the earliest such event in the range."
last_seen = "Time of the latest such event in the range."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."

[types]
event_name = "String"
property = "String"
events = "Nullable(UInt64)"
share = "Float64"
types = "Array(String)"
examples = "Array(String)"
first_seen = "DateTime"
last_seen = "DateTime"
sample = "Nullable(Float64)"
*/
WITH
    {sample:begin}
    {event_name:String} = '' OR event_name = {event_name:String}
    {sample:end}
SELECT
    event_name,
    tupleElement(pair, 1) AS property,
    toUInt64(round(count() / {share:Sample})) AS events,
    round(count() / max(count()) OVER (PARTITION BY event_name), 6) AS share,
    arraySort(groupUniqArrayIf(
        transform(
            substring(tupleElement(pair, 2), 1, 1),
            ['"', '{', '[', 't', 'f', 'n'],
            ['string', 'object', 'array', 'boolean', 'boolean', 'null'],
            'number'
        ),
        NOT is_event
    )) AS types,
    if(
        max(NOT is_event) = 0,
        [],
        arrayDistinct([
            substringUTF8(min(tupleElement(pair, 2)), 1, 100),
            substringUTF8(max(tupleElement(pair, 2)), 1, 100)
        ])
    ) AS examples,
    toTimeZone(min(timestamp), 'UTC') AS first_seen,
    toTimeZone(max(timestamp), 'UTC') AS last_seen,
    {share:Sample} AS sample
FROM
(
    SELECT
        timestamp,
        event_name,
        JSONExtractKeysAndValuesRaw({properties:JSON}) AS pairs,
        -- The first of equal keys, as JSONExtract reads them.
        arrayFilter((each, number) -> number = 1, pairs, arrayEnumerateUniq(pairs.1)) AS firsts
    FROM {database:Identifier}.{table:Identifier}
    WHERE timestamp >= {from:DateTime('UTC')}
        AND timestamp < {to:DateTime('UTC')}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
        {filters:And}
        AND ({event_name:String} = '' OR event_name = {event_name:String})
        AND {users:Sample}
)
ARRAY JOIN
    arrayConcat([('', '')], firsts) AS pair,
    arrayMap(n -> n = 0, range(length(firsts) + 1)) AS is_event
GROUP BY event_name, property, is_event
ORDER BY max(count()) OVER (PARTITION BY event_name) DESC, event_name ASC, is_event DESC, count() DESC, property ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
