-- Statements that raw SQL must answer, one per line; a naive filter would reject many of them.
-- {events} is the events table. ⏎ represents a line break.

--- group: words of other statements, in strings and names
SELECT 'DROP TABLE {events}'
SELECT 'a; DROP TABLE x; --'
SELECT 'it''s; DELETE FROM t'
SELECT 'it\'s; INSERT INTO t VALUES (1)'
SELECT '/* not a comment */ -- nor this'
SELECT "DROP TABLE x" FROM (SELECT 1 AS "DROP TABLE x")
SELECT 1 AS `insert into`
SELECT 1 AS "select"
SELECT now() AS created_at
SELECT now() AS updated_at, now() AS deleted_at, now() AS dropped_at
SELECT 1 AS drop_count, 2 AS insert_count, 3 AS alter_ego
SELECT 1 AS system, 2 AS file, 3 AS url, 4 AS remote
SELECT 1 AS truncate, 2 AS grant_total, 3 AS kill_rate
SELECT 1 AS `set`, 2 AS `use`, 3 AS `show`
SELECT 1 AS settings, 2 AS format, 3 AS outfile
SELECT 'SETTINGS max_threads = 1'
SELECT 'FORMAT CSV'
SELECT 'INTO OUTFILE \'/tmp/x\''
SELECT count() FROM {events} WHERE event_name = 'system.tables'
SELECT count() FROM {events} WHERE event_name IN ('insert', 'update', 'delete', 'drop')
SELECT count() FROM {events} WHERE event_name LIKE '%create%'
SELECT count() FROM {events} WHERE properties LIKE '%; DROP TABLE%'
SELECT countIf(event_name = 'file_created') AS files FROM {events}
SELECT event_name AS drop FROM {events} LIMIT 1
SELECT replaceAll('union select', 'union', 'x')
SELECT 'http://example.com/?q=1;DROP' AS url
SELECT '/etc/passwd' AS path
SELECT 'file(\'/etc/passwd\')'
SELECT 'sleep(3)' AS s
SELECT 'ü; ТАБЛИЦА', '表' AS `列`
SELECT $tag$ DROP TABLE x; $tag$
SELECT $$ it's; "quoted" `too` $$
SELECT 1 -- DROP TABLE x
SELECT 1 /* ; DROP TABLE x */
SELECT /* /* */ file('/etc/passwd') /* */ */ 1
SELECT 'ALIAS file(\'x\')' AS alias, 'DEFAULT' AS default
SELECT /* INSERT INTO */ 1
-- DROP TABLE x⏎SELECT 1
/* DELETE */ SELECT 1
# a comment⏎SELECT 1
SELECT 1;
SELECT 1 ; -- the end
SELECT 'a⏎b'
SELECT 'a⏎LIST id: 9'
SELECT 'table_name: system.users, identifier: x'
SELECT 'SETTINGS x' AS `a b`
SELECT 1 AS `a; b`
SELECT 1 AS "it's"
SELECT '' AS empty, ' ' AS blank
SELECT 'JOIN TREE', 'SETTINGS'

--- group: forms of a SELECT
SELECT arrayMap(toString, [1, 2]), arraySort(negate, [1, 2]), arraySum([1, 2])
DESCRIBE TABLE {events}
DESC ai_analytics_events
SELECT version(), currentDatabase()
WITH (x -> x * 2) AS doubled SELECT doubled(count()) FROM {events}
SELECT 1 IN system.one
SELECT 'u1' IN (SELECT user_id FROM {events})
SELECT k, count() FROM (SELECT number % 2 AS k FROM numbers(10)) GROUP BY k WITH TOTALS
SELECT 1
select 1
(SELECT 1)
((SELECT 1))
SELECT 1 UNION ALL SELECT 2
SELECT 1 UNION DISTINCT SELECT 1
(SELECT 1) UNION ALL (SELECT 2)
SELECT 1 INTERSECT SELECT 1
SELECT 1 EXCEPT SELECT 2
FROM numbers(2) SELECT number
FROM {events} SELECT count()
WITH 1 AS one SELECT one
WITH one AS (SELECT 1 AS n) SELECT n FROM one
WITH a AS (SELECT 1 AS n), b AS (SELECT n + 1 AS m FROM a) SELECT * FROM a, b
WITH a AS (SELECT 1 AS n) SELECT n FROM a UNION ALL SELECT n + 1 FROM a
WITH (SELECT max(number) FROM numbers(5)) AS highest SELECT highest
WITH e AS (SELECT user_id FROM {events}) SELECT count() FROM {events} WHERE user_id IN e
WITH user_id AS u, e AS (SELECT user_id FROM {events}) SELECT count() FROM {events} WHERE u IN e
WITH user_id AS e SELECT count() FROM {events} WHERE 'u1' IN (e, 'u2')
SELECT event_name AS n FROM {events} WHERE n IN (SELECT event_name FROM {events})
SELECT * FROM (SELECT 1 AS a) PASTE JOIN (SELECT 2 AS b)
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT sum(n) FROM r
SELECT * FROM (SELECT 1 AS a)
SELECT * FROM (SELECT * FROM (SELECT 1 AS a) AS x) AS y
SELECT (SELECT 1)
SELECT (SELECT count() FROM {events}) AS all_events
SELECT 1 WHERE EXISTS (SELECT 1)
SELECT 1 WHERE 1 IN (SELECT 1)
SELECT 1 WHERE (1, 2) IN ((1, 2), (3, 4))
SELECT number IN (1, 2) FROM numbers(3)
SELECT has([1, 2], 1), 1 IN [1, 2]
SELECT n FROM (SELECT 1 AS n, [1, 2] AS arr) WHERE n IN arr
SELECT 1 NOT IN (2), 1 GLOBAL IN (1)
SELECT DISTINCT event_name FROM {events}
SELECT DISTINCT ON (event_name) event_name, user_id FROM {events}
SELECT event_name, count() AS c FROM {events} GROUP BY event_name HAVING c > 0 ORDER BY c DESC LIMIT 3
SELECT event_name, count() FROM {events} GROUP BY 1 ORDER BY 2
SELECT event_name, count() FROM {events} GROUP BY ALL
SELECT event_name, count() FROM {events} GROUP BY event_name WITH TOTALS
SELECT app_id, event_name, count() FROM {events} GROUP BY ROLLUP(app_id, event_name)
SELECT app_id, event_name, count() FROM {events} GROUP BY CUBE(app_id, event_name)
SELECT app_id, count() FROM {events} GROUP BY GROUPING SETS ((app_id), ())
SELECT user_id FROM {events} ORDER BY timestamp DESC NULLS LAST LIMIT 2 OFFSET 1
SELECT user_id FROM {events} ORDER BY timestamp LIMIT 1 BY user_id
SELECT user_id FROM {events} ORDER BY timestamp OFFSET 1 ROW FETCH FIRST 2 ROWS ONLY
SELECT user_id FROM {events} ORDER BY user_id LIMIT 1 WITH TIES
SELECT * FROM {events} PREWHERE app_id = 'openstream' WHERE event_name != ''
SELECT number AS n FROM numbers(3) ORDER BY n WITH FILL FROM 0 TO 10 STEP 2
SELECT number AS n, 1 AS v FROM numbers(3) ORDER BY n WITH FILL INTERPOLATE (v AS v + 1)
SELECT a, b FROM (SELECT 1 AS a, [1, 2] AS b) ARRAY JOIN b
SELECT a, x FROM (SELECT 1 AS a, [1, 2] AS b) LEFT ARRAY JOIN b AS x
SELECT arrayJoin([1, 2, 3]) AS x
SELECT a.number, b.number FROM numbers(3) AS a JOIN numbers(3) AS b ON a.number = b.number
SELECT number FROM numbers(3) AS a LEFT JOIN numbers(2) AS b USING (number)
SELECT count() FROM numbers(3) AS a CROSS JOIN numbers(3) AS b
SELECT count() FROM numbers(3) AS a, numbers(3) AS b
SELECT a.n FROM (SELECT 1 AS n) AS a FULL OUTER JOIN (SELECT 2 AS n) AS b ON a.n = b.n
SELECT a.n FROM (SELECT 1 AS n, 1 AS t) AS a ASOF JOIN (SELECT 1 AS n, 0 AS t) AS b ON a.n = b.n AND a.t >= b.t
SELECT count() FROM {events} AS a ANY LEFT JOIN {events} AS b ON a.user_id = b.user_id
SELECT count() FROM {events} AS a SEMI JOIN {events} AS b ON a.user_id = b.user_id
SELECT row_number() OVER (ORDER BY number) FROM numbers(3)
SELECT sum(number) OVER w FROM numbers(3) WINDOW w AS (ORDER BY number ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
SELECT lagInFrame(number) OVER (PARTITION BY number % 2 ORDER BY number) FROM numbers(4)
SELECT rank() OVER (ORDER BY number), dense_rank() OVER (ORDER BY number) FROM numbers(3)
SELECT number FROM numbers(5) QUALIFY row_number() OVER (ORDER BY number) < 3
SELECT CASE WHEN 1 THEN 'a' ELSE 'b' END
SELECT CASE 1 WHEN 1 THEN 'a' END
SELECT 1 ? 'a' : 'b'
SELECT 1 BETWEEN 0 AND 2, 1 IS NULL, NOT 1, -1, 1 = 1 AND 2 > 1 OR 0
SELECT [1, 2][1], (1, 'a').2, map('a', 1)['a']
SELECT 1::Int8, '2026-02-02'::Date, CAST('1' AS UInt8), CAST(1, 'String')
SELECT INTERVAL 1 DAY, now() - INTERVAL 1 HOUR
SELECT DATE '2026-02-02', TIMESTAMP '2026-02-02 00:00:00'
SELECT * FROM {events} LIMIT 0
SELECT e.* FROM {events} AS e LIMIT 1
SELECT * EXCEPT (properties) FROM {events} LIMIT 1
SELECT * REPLACE (upper(event_name) AS event_name) FROM {events} LIMIT 1
SELECT COLUMNS('_id$') FROM {events} LIMIT 1
SELECT COLUMNS('_id$') APPLY(upper) FROM {events} LIMIT 1
SELECT * APPLY(toString) FROM {events} LIMIT 1
SELECT COLUMNS(app_id, user_id) FROM {events} LIMIT 1
SELECT arrayMap(x -> x + 1, [1, 2]), arrayFilter((x, i) -> i > 1, [1, 2], [1, 2])
WITH 'x' AS f SELECT f
SELECT untuple((1, 2))
SELECT EXTRACT(YEAR FROM now()), DATE_TRUNC('day', now()), DATE_ADD(DAY, 1, now())
SELECT TRIM(BOTH ' ' FROM ' a '), SUBSTRING('abc' FROM 2 FOR 1), POSITION('b' IN 'abc')
SELECT COUNT(*), COUNT(1), COUNT(DISTINCT user_id) FROM {events}
SELECT count(DISTINCT user_id, app_id) FROM {events}
SELECT sum(1) FILTER (WHERE event_name = 'a') FROM {events}
SELECT 1 AS a, a + 1 AS b, b * 2 AS c
SELECT number FROM numbers(10) WHERE number % 2 = 0 LIMIT 3
SELECT NULL, true, false, nan, inf, 1e9, 0xFF, 1_000

--- group: analytics over the events
SELECT uniq(user_id), uniqExact(user_id), uniqHLL12(user_id), uniqCombined(user_id) FROM {events}
SELECT toStartOfHour(timestamp) AS h, count() FROM {events} GROUP BY h ORDER BY h
SELECT toStartOfInterval(timestamp, INTERVAL 5 MINUTE) AS t, count() FROM {events} GROUP BY t
SELECT toDate(timestamp) AS d, uniqIf(user_id, event_name = 'video_start') FROM {events} GROUP BY d
SELECT JSONExtractString(properties, 'stream_id') AS s, count() FROM {events} GROUP BY s
SELECT avg(JSONExtractFloat(properties, 'watch_time')) FROM {events}
SELECT JSONHas(properties, 'a'), JSONType(properties), JSONLength(properties) FROM {events} LIMIT 1
SELECT arrayJoin(JSONExtractKeys(properties)) AS k, count() FROM {events} GROUP BY k
SELECT quantile(0.95)(JSONExtractUInt(properties, 'ms')) FROM {events}
SELECT quantiles(0.5, 0.9, 0.99)(length(properties)) FROM {events}
SELECT quantileTDigestIf(0.5)(length(properties), app_id = 'openstream') FROM {events}
SELECT topK(3)(event_name), topKWeighted(3)(event_name, 1) FROM {events}
SELECT groupArray(3)(user_id), groupUniqArray(user_id) FROM {events}
SELECT argMax(event_name, timestamp), argMin(event_name, timestamp) FROM {events}
SELECT sumMap(map(event_name, 1)) FROM {events}
SELECT windowFunnel(3600)(timestamp, event_name = 'a', event_name = 'b') FROM {events}
SELECT retention(event_name = 'a', event_name = 'b') FROM {events}
SELECT sequenceMatch('(?1)(?2)')(timestamp, event_name = 'a', event_name = 'b') FROM {events}
SELECT uniqMerge(s) FROM (SELECT uniqState(user_id) AS s FROM {events})
SELECT finalizeAggregation(uniqState(user_id)) FROM {events}
SELECT sumOrNull(1), avgOrDefault(1), countIfOrNull(0) FROM {events}
SELECT sumArray([1, 2]), uniqArray([1, 2]), sumForEach([1, 2]) FROM {events}
SELECT arrayReduce('sum', [1, 2]), arrayReduce('quantile(0.5)', [1, 2, 3])
SELECT arrayReduce('quantiles(0.5, 0.95, 1e-3)', [1, 2]), arrayReduce('topK(3)', ['a', 'b'])
SELECT any(event_name), anyLast(event_name), min(timestamp), max(timestamp) FROM {events}
SELECT stddevPop(1), varSamp(1), corr(1, 2), covarPop(1, 2) FROM {events}
SELECT histogram(3)(length(properties)) FROM {events}
SELECT bar(count(), 0, 10, 5) FROM {events}
SELECT event_name, count() * 100 / sum(count()) OVER () FROM {events} GROUP BY event_name
SELECT groupBitOr(1), groupBitmap(1) FROM {events}
SELECT dateDiff('hour', min(timestamp), max(timestamp)) FROM {events}
SELECT formatDateTime(timestamp, '%Y-%m-%d') AS day FROM {events} LIMIT 1
SELECT toTimeZone(timestamp, 'Europe/Berlin') FROM {events} LIMIT 1
SELECT count() FROM {events} WHERE timestamp >= now() - INTERVAL 7 DAY AND app_id = 'openstream'
SELECT count() FROM {events} WHERE timestamp BETWEEN '2026-01-01 00:00:00' AND '2027-01-01 00:00:00'
SELECT user_id, neighbor FROM (SELECT user_id, lagInFrame(event_name) OVER (PARTITION BY user_id ORDER BY timestamp) AS neighbor FROM {events})

--- group: functions that only compute
SELECT lower('A'), upper('a'), length('a'), reverse('ab'), concat('a', 'b'), 'a' || 'b'
SELECT substring('abc', 1, 2), splitByChar(',', 'a,b'), arrayStringConcat(['a', 'b'], ',')
SELECT match('abc', 'b'), extract('a1', '[0-9]'), replaceRegexpAll('aa', 'a', 'b'), 'a' LIKE '%', 'a' ILIKE 'A'
SELECT domain('http://a.example/x?y=1'), cutQueryString('http://a/x?y'), extractURLParameter('http://a?y=1', 'y'), path('http://a/b')
SELECT cityHash64('a'), sipHash64('a'), xxHash64('a'), hex(MD5('a')), hex(SHA256('a'))
SELECT round(1.5), floor(1.5), ceil(1.5), abs(-1), sqrt(4), pow(2, 3), log(2), exp(1), greatest(1, 2), least(1, 2)
SELECT if(1, 2, 3), multiIf(1, 2, 3), coalesce(NULL, 1), ifNull(NULL, 1), nullIf(1, 1), assumeNotNull(1)
SELECT toInt8('1'), toUInt64OrZero('x'), toFloat64OrNull('x'), toDecimal64(1.5, 2), toString(1)
SELECT toDateTime('2026-02-02 00:00:00'), parseDateTimeBestEffort('2026-02-02T00:00:00Z'), toUnixTimestamp(now()), fromUnixTimestamp(0)
SELECT today(), yesterday(), now64(3), toYYYYMM(now()), toMonday(now()), addDays(now(), 1)
SELECT range(3), arraySort([2, 1]), arrayUniq([1, 1]), arrayDistinct([1, 1]), arraySum([1, 2]), arrayZip([1], [2]), has([1], 1)
SELECT tuple(1, 2), tupleElement((1, 2), 1), mapKeys(map('a', 1)), mapValues(map('a', 1))
SELECT JSONExtract('{{"a": 1}}', 'a', 'Int8'), JSON_VALUE('{{"a": 1}}', '$.a'), toJSONString(map('a', 1)), isValidJSON('x')
SELECT base64Encode('a'), base64Decode('YQ=='), hex('a'), unhex('61'), bin(1)
SELECT IPv4NumToString(1), toIPv4('1.2.3.4'), isIPAddressInRange('1.2.3.4', '1.0.0.0/8')
SELECT toUUID('00000000-0000-0000-0000-000000000001'), generateUUIDv4() != generateUUIDv4()
SELECT rand() >= 0, randUniform(0, 1) < 2, length(randomString(3))
SELECT geoDistance(0, 0, 1, 1) > 0, geohashEncode(1.5, 1.5)
SELECT bitAnd(1, 3), bitCount(7), intDiv(7, 2), 7 % 2, modulo(7, 2)
SELECT damerauLevenshteinDistance('a', 'b'), ngramDistance('abcd', 'abce'), soundex('a')
SELECT formatReadableSize(1024), formatReadableQuantity(1000), formatReadableTimeDelta(60)
SELECT transform(1, [1], ['a'], 'b'), materialize(1), identity(1), toTypeName(1), ignore(1)
SELECT encodeURLComponent('a b'), decodeURLComponent('a%20b'), format('{{}} {{}}', 'a', 'b')
SELECT arrayFold((acc, x) -> acc + x, [1, 2], toInt64(0)), arrayCumSum([1, 2])
SELECT dotProduct([1, 2], [3, 4]), cosineDistance([1, 2], [3, 4])
SELECT rowNumberInAllBlocks(), blockNumber() FROM numbers(1)

--- group: sources without stored data
SELECT number FROM numbers(3)
SELECT number FROM numbers(5, 3)
SELECT number FROM numbers_mt(3)
SELECT * FROM values('a Int8, b String', (1, 'x'), (2, 'DROP'))
SELECT * FROM values((1, 'x'), (2, 'y'))
SELECT * FROM values('x', 'y')
SELECT * FROM values(1, 2, 3)
SELECT * FROM values('t DateTime(\'UTC\'), e Enum8(\'a\' = 1, \'b\' = -2), d Decimal(10, 2)', (now(), 'a', 1.5), (now(), 'b', 2))
SELECT * FROM values('a Array(Tuple(n Int8, s LowCardinality(Nullable(String)))), m Map(String, UInt8)', ([(1, 'x')], map('a', 1)), ([], map()))
WITH 'x' AS s SELECT * FROM values('a String', s)
SELECT * FROM null('a Int8, b DateTime64(3, \'UTC\')')
SELECT * FROM generateSeries(1, 3)
SELECT * FROM generate_series(1, 10, 3)
SELECT * FROM view(SELECT 1 AS a)
SELECT * FROM system.one
SELECT dummy FROM system.one
SELECT * FROM numbers(toUInt64(1 + 2))

--- group: time zones and types
SELECT toDateTime(0, 'Europe/Berlin'), toDateTime64(0, 3, 'UTC'), now('UTC'), toDate(now(), 'Asia/Tokyo')
SELECT toStartOfInterval(timestamp, INTERVAL 1 DAY, 'Europe/Berlin') FROM {events}
SELECT toStartOfInterval(timestamp, INTERVAL 1 DAY, toDateTime('2026-01-01 06:00:00')) FROM {events}
SELECT dateDiff('day', timestamp, now(), 'America/New_York'), formatDateTime(timestamp, '%F', 'UTC') FROM {events}
SELECT toWeek(timestamp, 1, 'UTC'), addDays(timestamp, 1), toString(timestamp) FROM {events}
SELECT toDateTimeOrDefault('x', 'UTC', toDateTime(0)), parseDateTimeInJodaSyntax('2026-01', 'yyyy-MM')
SELECT CAST(1 AS DOUBLE PRECISION), '1'::INT UNSIGNED, CAST([1], 'Array(Nullable(UInt8))'), 'a'::Enum8('a' = 1)
SELECT toString(properties::JSON(max_dynamic_paths = 8, `a.b` UInt8, SKIP c)) FROM {events}
SELECT JSONExtract(properties, 'Tuple(quality String, watch_time Float64)'), JSONExtract(properties, 'a', 1, 'DateTime(\'UTC\')') FROM {events}
SELECT tuple(1 AS a, 2 AS b) AS t, t.1, tupleElement(t, 1), t.*
SELECT arrayMap(toDate, [timestamp]), arrayMap(toUInt8, ['1']) FROM {events}
