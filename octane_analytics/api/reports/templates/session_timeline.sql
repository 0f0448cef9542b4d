/*
title = "Timeline of a session or view"
description = """
Every event of one session or view, oldest first, for support: what the viewer did and what the player reported.
Events of the same second are in the order in which a view has them. An id is looked up in `session_id` and
`view_id`; the same id in two applications shows both, unless `app_id` is given. The range is searched as a
whole; no rollup is used."""
cache_seconds = 0
page_rows = 1000

[parameters.id]
type = "String"
required = true
help = "session_id or view_id, exactly."

[columns]
timestamp = "Time of the event, in whole seconds."
elapsed_seconds = "Seconds since the first event shown for the application."
app_id = "Application."
user_id = "User."
event_name = "Name of the event."
session_id = "properties.session_id as text; empty if absent."
view_id = "properties.view_id as text; empty if absent."
content = "content_id, else stream_id, else video_id; empty if absent."
position = "properties.position of a playback event in seconds; null if it is not a number."
properties = "All properties, as the JSON text that was sent."

[types]
timestamp = "DateTime"
elapsed_seconds = "Int64"
app_id = "String"
user_id = "String"
event_name = "String"
session_id = "String"
view_id = "String"
content = "String"
position = "Nullable(Float64)"
properties = "String"
*/
SELECT
    toTimeZone(timestamp, 'UTC') AS timestamp,
    toUInt32(timestamp) - min(toUInt32(timestamp)) OVER (PARTITION BY app_id) AS elapsed_seconds,
    app_id,
    user_id,
    event_name,
    session_id,
    view_id,
    content,
    position,
    text AS properties
FROM
(
    SELECT
        timestamp,
        app_id,
        user_id,
        event_name,
        properties AS text,
        {properties:JSON} AS readable,
        JSONExtract(
            readable,
            'Tuple(session_id String, view_id String, content_id String, stream_id String, video_id String)'
        ) AS ids,
        ids.1 AS session_id,
        ids.2 AS view_id,
        coalesce(nullIf(ids.3, ''), nullIf(ids.4, ''), ids.5) AS content,
        if(
            {is_playback:Source} OR event_name = 'video_seek',
            toFloat64OrNull(JSONExtractRaw(readable, 'position')),
            NULL
        ) AS position
    FROM {database:Identifier}.{table:Identifier}
    -- The documents of these events are parsed, and no others.
    PREWHERE timestamp >= {from:DateTime('UTC')}
        AND timestamp < {to:DateTime('UTC')}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
        -- Without parsing, for an id that JSON writes as it is unless its characters are escaped.
        AND (
            NOT match({id:String}, '^[A-Za-z0-9_.:-]+$')
            OR position(properties, {id:String}) + position(properties, '\\u') > 0
        )
    WHERE (session_id = {id:String} OR view_id = {id:String}) {filters:And}
)
ORDER BY
    timestamp ASC,
    app_id ASC,
    transform(
        event_name,
        [
            'session_start', 'search', 'search_click', 'video_request', 'video_start',
            'video_error', 'video_end', 'session_end'
        ],
        [0, 1, 2, 3, 4, 6, 7, 8],
        5
    ) AS rank ASC,
    event_name ASC,
    properties ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
