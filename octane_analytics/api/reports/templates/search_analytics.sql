/*
title = "Searches"
description = """
Search queries, most frequent first, from `search` events (`properties.query`, `properties.results_count`) and
`search_click` events (`properties.query`). Queries are grouped by their exact text; events without a query are
excluded."""
cache_seconds = 60
page_rows = 100

[columns]
query = "Text of the query."
searches = "Number of search events."
unique_users = "Distinct users who searched."
zero_result_searches = "search events whose results_count is 0."
clicks = "Number of search_click events."
click_through_rate = "clicks divided by searches, 4 decimals; null if no search of the clicks is in the range."
*/
SELECT
    query,
    countIf(event_name = 'search') AS searches,
    uniqExactIf(user_id, event_name = 'search') AS unique_users,
    countIf(event_name = 'search' AND results_count = 0) AS zero_result_searches,
    countIf(event_name = 'search_click') AS clicks,
    if(searches = 0, NULL, round(clicks / searches, 4)) AS click_through_rate
FROM
(
    SELECT
        {properties:JSON} AS readable,
        event_name,
        user_id,
        JSONExtractString(readable, 'query') AS query,
        if(
            event_name = 'search',
            toFloat64OrNull(JSONExtractRaw(readable, 'results_count')),
            NULL
        ) AS results_count
    FROM {database:Identifier}.{table:Identifier}
    WHERE event_name IN ('search', 'search_click')
        AND timestamp >= {from:DateTime('UTC')}
        AND timestamp < {to:DateTime('UTC')}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
)
WHERE query != ''
GROUP BY query
ORDER BY searches DESC, clicks DESC, query ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
