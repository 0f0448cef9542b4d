/*
title = "Searches"
description = """
Search queries, most frequent first, from `search` events (`properties.query`, `properties.results_count`) and
`search_click` events (`properties.query`). Queries are grouped by their exact text; events without a query
are excluded. Whole hours are answered from the rollup `search`."""
key = ["query"]
cache_seconds = 60
has_exact = true
page_rows = 100

[rollup]
prefers = "search"

[filters]
query = "query"

[columns]
query = "Text of the query."
searches = "Number of search events."
unique_users = "Distinct users who searched; up to 4,096 exactly, above with an error of about 0.3 %, unless `exact`."
zero_result_searches = "search events whose results_count is 0."
clicks = "Number of search_click events."
click_through_rate = "clicks divided by searches, 4 decimals; null if no search of the clicks is in the range."

[types]
query = "String"
searches = "UInt64"
unique_users = "UInt64"
zero_result_searches = "UInt64"
clicks = "UInt64"
click_through_rate = "Nullable(Float64)"
*/
SELECT
    query,
    countIfMerge(search_events) AS searches,
    uniqCombined64IfMerge(users) AS unique_users,
    countIfMerge(fruitless) AS zero_result_searches,
    countIfMerge(click_events) AS clicks,
    if(searches = 0, NULL, round(clicks / searches, 4)) AS click_through_rate
FROM
(
    {rollup:begin}
    SELECT
        {query:Rollup} AS query,
        countIfState(event_name = 'search') AS search_events,
        uniqCombined64IfState(user_id, event_name = 'search') AS users,
        countIfState({has_no_results:Rollup}) AS fruitless,
        countIfState(event_name = 'search_click') AS click_events
    FROM {database:Identifier}.{table:Identifier}
    WHERE {range:Rollup}
        AND ({app_id:String} = '' OR app_id = {app_id:String})
        {filters:And}
        AND event_name IN ('search', 'search_click') -- events only
    GROUP BY query
    {rollup:end}
)
WHERE query != ''
GROUP BY query {totals:With}
HAVING searches + clicks > 0
ORDER BY searches DESC, clicks DESC, query ASC
LIMIT {limit:UInt32} OFFSET {offset:UInt32}
