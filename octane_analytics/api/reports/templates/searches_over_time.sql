/*
title = "Searches over time"
description = """
Searches per bucket, oldest first, from `search` and `search_click` events with a query, counted as in
search_analytics. Buckets are those of playback_over_time; with `bucket_seconds` 0 the whole range is one
bucket. Whole hours are answered from the rollup `search`, if a bucket is an hour or longer."""
key = ["bucket"]
cache_seconds = 30
has_exact = true
page_rows = 10000

[parameters.bucket_seconds]
type = "UInt32"
default = 3600
allowed = [0, 60, 300, 900, 3600, 21600, 86400]
help = "Width of a bucket in seconds; 86400 is a calendar day, even if 23 or 25 hours long; 0 the whole range."

[parameters.timezone]
type = "String"
format = "timezone"
default = "UTC"
help = "IANA time zone of the calendar days."

[filters]
query = "query"

[columns]
bucket = "Start of the bucket; of the range, if it is one bucket."
searches = "Number of search events."
unique_users = "Distinct users who searched; up to 4,096 exactly, above with an error of about 0.3 %, unless `exact`."
zero_result_searches = "search events whose results_count is 0."
zero_result_share = "zero_result_searches divided by searches, 6 decimals; null without searches."
clicks = "Number of search_click events."
click_through_rate = "clicks divided by searches, 4 decimals; null without searches."

[types]
bucket = "DateTime"
searches = "UInt64"
unique_users = "UInt64"
zero_result_searches = "UInt64"
zero_result_share = "Nullable(Float64)"
clicks = "UInt64"
click_through_rate = "Nullable(Float64)"

[rollup]
hours = "{whole_hours:Bucket}"
*/
SELECT
    {start:Bucket} AS bucket,
    searches,
    unique_users,
    zero_result_searches,
    if(searches = 0, NULL, round(zero_result_searches / searches, 6)) AS zero_result_share,
    clicks,
    if(searches = 0, NULL, round(clicks / searches, 4)) AS click_through_rate
FROM
(
    SELECT
        number,
        countIfMerge(search_events) AS searches,
        uniqCombined64IfMerge(users) AS unique_users,
        countIfMerge(fruitless) AS zero_result_searches,
        countIfMerge(click_events) AS clicks
    FROM
    (
        {rollup:begin}
        SELECT
            {rollup_number:Bucket} AS number,
            countIfState(event_name = 'search') AS search_events,
            uniqCombined64IfState(user_id, event_name = 'search') AS users,
            countIfState({has_no_results:Rollup}) AS fruitless,
            countIfState(event_name = 'search_click') AS click_events
        FROM {database:Identifier}.{table:Identifier}
        WHERE {range:Rollup}
            AND ({app_id:String} = '' OR app_id = {app_id:String})
            {filters:And}
            AND {query:Rollup} != ''
            AND event_name IN ('search', 'search_click') -- events only
        GROUP BY number
        {rollup:end}
    )
    GROUP BY number {totals:With}
    ORDER BY number ASC {fill:Bucket}
    LIMIT {limit:UInt32} OFFSET {offset:UInt32}
)
ORDER BY number ASC
