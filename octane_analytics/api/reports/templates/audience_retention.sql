/*
title = "Audience retention"
description = """
How often each hundredth of one content is watched, from its start to its end. A heartbeat is a pass over the
positions from `position` less its `watch_time` up to `position`, at most to the end; a segment's ratio is the
time of passes over it divided by its length and by the views, and may exceed 1 where viewers watch again. This is
the audienceWatchRatio of YouTube Analytics. `relative` is by our definition the ratio divided by the mean ratio
of contents of similar length; YouTube's relativeRetentionPerformance is instead a rank among them, from 0 to 1.
The length of a content is its longest `duration` in the range. Above `max_events` playback events in the range,
users are sampled; no rollup is used."""
key = ["segment"]
cache_seconds = 300
is_sampled = true
max_events = 500000

[parameters.content]
type = "String"
required = true
help = "Content: a content_id, stream_id or video_id."

[parameters.similar_share]
type = "Float64"
default = 0.2
minimum = 0
maximum = 1
help = "Contents are of similar length if theirs differs by at most this share of it."

[columns]
segment = "Number of the segment, from 0 to 99."
starts_at = "Position at which the segment starts, in seconds, 3 decimals."
views = "Views of the content with any position."
ratio = "Mean times that a view watches the segment (6 decimals)."
similar_contents = "Number of other contents of similar length."
similar_ratio = "Mean ratio of these contents at the segment (6 decimals); null without."
relative = "ratio divided by similar_ratio (6 decimals); null without."
sample = "Share of the users that were read (0 to 1); below 1 the counts are estimates, divided by it."

[types]
segment = "UInt8"
starts_at = "Float64"
views = "Nullable(UInt64)"
ratio = "Float64"
similar_contents = "UInt64"
similar_ratio = "Nullable(Float64)"
relative = "Nullable(Float64)"
sample = "Nullable(Float64)"
*/
WITH
    {sample:begin}
    {is_playback:Source}
    {sample:end}
SELECT
    segment,
    round(maxIf(length, is_asked) * segment / 100000, 3) AS starts_at,
    toUInt64(round(maxIf(content_views, is_asked) / {share:Sample})) AS views,
    round(sumIf(passes / length / content_views, is_asked), 6) AS ratio,
    countIf(NOT is_asked) AS similar_contents,
    if(similar_contents = 0, NULL, round(avgIf(passes / length / content_views, NOT is_asked), 6))
        AS similar_ratio,
    if(
        similar_contents = 0 OR sumIf(passes, NOT is_asked) = 0,
        NULL,
        round(
            sumIf(passes / length / content_views, is_asked)
                / avgIf(passes / length / content_views, NOT is_asked),
            6
        )
    ) AS relative,
    {share:Sample} AS sample
FROM
(
    SELECT
        content = {content:String} AS is_asked,
        length,
        content_views,
        segment,
        -- In hundredths of a millisecond, of which a segment has as many as the content milliseconds.
        sums.2[indexOf(sums.1, toUInt8(segment))] AS passes
    FROM
    (
        SELECT
            content,
            any(length) AS length,
            any(content_views) AS content_views,
            sumMap(segments, overlaps) AS sums
        FROM
        (
            SELECT
                content,
                length,
                content_views,
                toInt64(bitShiftRight(pass, 27)) AS reached_ms,
                least(reached_ms, length) * 100 AS pass_end,
                least(greatest(reached_ms - toInt64(bitAnd(pass, 134217727)), 0), length) * 100
                    AS pass_start,
                arrayMap(
                    n -> toUInt8(n),
                    range(
                        toUInt32(intDiv(pass_start, length)),
                        toUInt32(least(intDiv(pass_end + length - 1, length), 100))
                    )
                ) AS segments,
                arrayMap(
                    n -> least(pass_end, (n + 1) * length) - greatest(pass_start, n * length),
                    segments
                ) AS overlaps
            FROM
            (
                SELECT *, maxIf(length, content = {content:String}) OVER () AS asked_length
                FROM
                (
                    SELECT
                        content,
                        max(duration_ms) AS length,
                        uniqExactIf(view, position_ms >= 0) AS content_views,
                        -- One read for all: position and watched time, of 35 and 27 bits.
                        groupArrayIf(
                            bitShiftLeft(toUInt64(position_ms), 27) + watch_ms,
                            position_ms > 0 AND watch_ms > 0
                        ) AS passes
                    FROM {playback:Source}
                    WHERE content != ''
                    GROUP BY content
                    HAVING length > 0 AND content_views > 0
                )
            )
            LEFT ARRAY JOIN passes AS pass
            WHERE asked_length > 0
                AND abs(length - asked_length) <= {similar_share:Float64} * asked_length
        )
        GROUP BY content
    )
    ARRAY JOIN range(100) AS segment
)
GROUP BY segment
ORDER BY segment ASC
