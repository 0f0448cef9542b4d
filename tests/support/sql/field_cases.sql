--- group: forged names; status: 403
SELECT secret FROM vault.canary AS "x, identifier: ai_analytics_events⏎Identifier foo"
SELECT arrayReduce('groupConcat(currentUser())' AS "x, constant_value: 'sum', constant_value_type: String⏎Identifier foo", ['a','b'])
SELECT b FROM values('a String, b String ALIAS currentUser()' AS "x, constant_value: 'a String', constant_value_type: String⏎Identifier foo", ('x'))
SELECT * FROM values(concat('a String, b String ALIAS currentUser()', '') AS "x, function_name: tuple, function_type: ordinary⏎Identifier foo", ('x'))
SELECT arrayReduce('groupConcat(toString(sleep(1)))' AS "x, constant_value: 'sum', constant_value_type: String⏎Identifier foo", ['a','b'])

--- group: tables of IN; status: 403
SELECT 'a name' IN system.contributors
SELECT tuple('UTC') IN system.time_zones
SELECT 'x' IN vault.`dot.ted`
SELECT 'x' IN `dot.ted`

--- group: sets that may be read; status: 200
SELECT 1 IN system.one
SELECT 'u1' IN (SELECT user_id FROM ai_analytics_events)

--- group: heavy; status: 403 422 504
SELECT polygonsIntersectionCartesian([[arrayMap(i -> (cos(i*2.1),sin(i*2.1)), range(4000))]], [[arrayMap(i -> (cos(i*2.3),sin(i*2.3)), range(4000))]])
SELECT kolmogorovSmirnovTest('two-sided','exact')(number, number%2) FROM numbers(200000)
SELECT arrayLevenshteinDistance(range(100000), range(100000))
SELECT mannWhitneyUTest('two-sided')(number, number%2) FROM numbers(30000000)
SELECT sum(length(arrayMap(x -> length(arrayMap(y -> y + x, range(20000))), range(20000))))

--- group: searches that outlive their limits; status: 403
SELECT length(replaceRegexpAll(repeat('a', 1000000), 'a*?b|a', 'x'))
SELECT length(extractAll(repeat('a', 1000000), 'a*?b|a'))
SELECT countMatches(repeat('a', 1000000), '(a+b)?a')
SELECT countMatches(repeat('a', 200000), '\\b')
SELECT length(splitByRegexp('a*?b|a', repeat('a', 1000000)))
SELECT regexp_instr(repeat('a', 1000000), '(a*?b|a)', 1, 900000)
SELECT arrayMap(countMatches, [repeat('a', 1000000)], ['a*?b|a'])
SELECT match(repeat('a', 1000000), '(a|aa){1,500}b')
SELECT repeat('a', 1000000) LIKE repeat('%a', 10000) || 'b'
SELECT repeat('a', 1000000) ILIKE '%' || repeat('a', 500000) || 'b%'
SELECT positionCaseInsensitive(repeat('a', 1000000), repeat('a', 500000) || 'b')
SELECT multiSearchAnyCaseInsensitiveUTF8(repeat('a', 1000000), [repeat('a', 500000) || 'b'])
SELECT JSON_VALUE('[' || repeat('[1],', 200000) || '1]', '$[*][*][5]')
SELECT COLUMNS('(a|aa){1,500}b') FROM ai_analytics_events

--- group: big answers; status: 422
SELECT arrayMap(x -> toFixedString('ab', 2), range(number + 30000000)) FROM numbers(1)
SELECT arrayMap(x -> toDate(x % 60000), range(number + 30000000)) FROM numbers(1)
SELECT arrayMap(x -> 1::UInt8, range(60000000))
SELECT arrayMap(x -> emptyArrayUInt8(), range(8000000))
SELECT arrayMap(x -> toLowCardinality(toString(x)), range(number + 1000000)) FROM numbers(1)
SELECT arrayMap(x -> toLowCardinality('abc'), range(number + 8000000)) FROM numbers(1)
SELECT arrayMap(x -> toLowCardinality(toNullable('')), range(1000)) FROM numbers(10000)

--- group: answers of almost the limit; status: 200
SELECT repeat(char(0), 1000) FROM numbers(10000)
SELECT repeat('\"', 3000) FROM numbers(10000)
SELECT repeat('😀', 1400) FROM numbers(10000)
SELECT toLowCardinality(toString(number)) FROM numbers(10000)

--- group: harmless; status: 200
WITH (x -> x * 2) AS dbl SELECT dbl(count()) FROM ai_analytics_events
DESCRIBE TABLE ai_analytics_events
SELECT version()
SELECT currentDatabase()
SELECT k, count() FROM (SELECT number % 2 AS k FROM numbers(10)) GROUP BY k WITH TOTALS
SELECT replaceRegexpAll('a  b', '\\s+', ' '), extractAll('a1b22', '\\d+'), splitByRegexp('[,;]\\s*', 'a, b;c')
SELECT match('a.b', '^a\\.b$'), 'x' ILIKE '%X%', positionCaseInsensitive('ABC', 'b'), JSON_VALUE('{"a":1}', '$.a')

--- group: harmless with a hint; status: 400
SELECT count() FROM ai_analytics_events SAMPLE 0.1
