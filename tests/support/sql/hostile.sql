-- Statements that raw SQL must reject, one per line. The line before a group lists the permitted statuses of
-- the response, and the defences each of which stops the group alone: user (grants and profile), validation
-- (ClickHouse's parser and the allow-lists), limits (settings of each query, including readonly=1).
-- Placeholders: {events} the events table, {database} its database, {near} another table of it, {far} a table
-- of another database, {far_database} that database, {file} a file, {out} a path to write to, {port} a
-- listening port. ⏎ represents a line break.

--- group: writes; status: 403; claimed: user validation limits
INSERT INTO {events} SELECT * FROM {events}
INSERT INTO {events} VALUES (now(), 'a', 'b', 'c', '{{}}')
INSERT INTO {near} SELECT 'x'
INSERT INTO FUNCTION file('{out}', 'CSV', 'a Int8') SELECT 1
INSERT INTO FUNCTION url('http://127.0.0.1:{port}/', 'CSV', 'a Int8') SELECT 1
INSERT INTO FUNCTION null('a Int8') SELECT 1
TRUNCATE TABLE {events}
DROP TABLE {events}
DROP TABLE IF EXISTS {far} SYNC
DROP DATABASE {far_database}
DETACH TABLE {events}
RENAME TABLE {events} TO {database}.gone
EXCHANGE TABLES {events} AND {near}
ALTER TABLE {events} DELETE WHERE 1
ALTER TABLE {events} UPDATE user_id = 'x' WHERE 1
ALTER TABLE {events} DROP COLUMN user_id
ALTER TABLE {events} ADD COLUMN extra Int8
ALTER TABLE {events} DROP PARTITION 202602
ALTER TABLE {events} MODIFY TTL timestamp + INTERVAL 1 DAY
ALTER TABLE {events} MODIFY SETTING non_replicated_deduplication_window = 0
ALTER TABLE {events} FREEZE
DELETE FROM {events} WHERE 1
UPDATE {events} SET user_id = 'x' WHERE 1
OPTIMIZE TABLE {events} FINAL
CREATE TABLE {database}.made (a Int8) ENGINE = Memory
CREATE TABLE {database}.made ENGINE = Memory AS SELECT * FROM {far}
CREATE TABLE {database}.made (a String) ENGINE = File(CSV)
CREATE TABLE {database}.made (a String) ENGINE = URL('http://127.0.0.1:{port}/', CSV)
CREATE OR REPLACE TABLE {events} (a Int8) ENGINE = Memory
CREATE VIEW {database}.made AS SELECT * FROM {far}
CREATE MATERIALIZED VIEW {database}.made ENGINE = Memory AS SELECT * FROM {events}
CREATE DATABASE made
CREATE DICTIONARY {database}.made (a UInt64) PRIMARY KEY a SOURCE(HTTP(URL 'http://127.0.0.1:{port}/' FORMAT CSV)) LAYOUT(FLAT()) LIFETIME(0)
CREATE FUNCTION made AS (x) -> file(x)
CREATE NAMED COLLECTION made AS a = 1
CREATE USER made
CREATE ROLE made
CREATE QUOTA made
CREATE SETTINGS PROFILE made
CREATE ROW POLICY made ON {events} USING 1
GRANT ALL ON *.* TO default
REVOKE ALL ON *.* FROM default
ALTER USER default IDENTIFIED BY 'x'
DROP USER default
DROP FUNCTION IF EXISTS made
BACKUP TABLE {events} TO File('{out}')
RESTORE TABLE {events} FROM File('{out}')
ATTACH TABLE {database}.made FROM '{out}' (a Int8) ENGINE = Memory
UNDROP TABLE {database}.made
MOVE USER default TO local

--- group: commands; status: 403; claimed: validation
SYSTEM STOP MERGES
SYSTEM STOP MERGES {events}
SYSTEM FLUSH LOGS
SYSTEM RELOAD CONFIG
SYSTEM DROP MARK CACHE
SYSTEM STOP LISTEN HTTP
KILL QUERY WHERE 1
KILL MUTATION WHERE 1
SET max_execution_time = 0
SET readonly = 0
USE system
BEGIN TRANSACTION
SHOW TABLES
SHOW DATABASES
SHOW CREATE TABLE {events}
SHOW GRANTS
SHOW PROCESSLIST
SHOW SETTINGS LIKE 'max_%'
SHOW USERS
SHOW FUNCTIONS
DESCRIBE TABLE {far}
DESCRIBE TABLE {near}
DESCRIBE TABLE {events} FORMAT CSV
DESCRIBE TABLE {events} INTO OUTFILE '{out}'
DESCRIBE TABLE numbers(1)
DESCRIBE (SELECT * FROM {far})
EXISTS TABLE {far}
CHECK TABLE {events}
CHECK GRANT SELECT ON {far}
EXPLAIN SELECT 1
EXPLAIN QUERY TREE SELECT (SELECT max(secret) FROM {far})
EXPLAIN PIPELINE SELECT * FROM {events}
EXPLAIN ESTIMATE SELECT * FROM {events}
SELECT 1 PARALLEL WITH SELECT 2

--- group: breakouts; status: 400 403; claimed: validation
SELECT 1; DROP TABLE {events}
SELECT 1; SELECT secret FROM {far}
SELECT count() FROM {events}; TRUNCATE TABLE {events};
; DROP TABLE {events}
/* */ TRUNCATE TABLE {events}
-- a comment⏎DROP TABLE {events}
SELECT 1 -- ⏎; DROP TABLE {events}
SELECT 1 /* */ ; /* */ DROP TABLE {events}
SELECT 1 # ⏎; DROP TABLE {events}
graph = 1 SELECT secret FROM {far}
optimize = 1 SELECT (SELECT max(secret) FROM {far})
run_passes = 1 SELECT (SELECT max(secret) FROM {far})
, run_passes = 1 SELECT (SELECT max(secret) FROM {far})
, graph = 1 SELECT 1
= 0, run_passes = 1 SELECT (SELECT max(secret) FROM {far})
SELECT 1 UNION ALL DROP TABLE {events}
(SELECT 1); DROP TABLE {events}
(DROP TABLE {events})
WITH x AS (DROP TABLE {events}) SELECT 1
SELECT * FROM (INSERT INTO {events} SELECT * FROM {events})
SELECT $tag$ $tag$; DROP TABLE {events}
SELECT 'a''; DROP TABLE {events} --'; DROP TABLE {events}
SELECT 'a\'; DROP TABLE {events} --'; DROP TABLE {events}
FROM {events} SELECT 1; DROP TABLE {events}
EXPLAIN AST SELECT 1; TRUNCATE TABLE {events}
AST SELECT 1
QUERY TREE SELECT 1

--- group: output; status: 403; claimed: validation
SELECT 1 FORMAT CSV
SELECT 1 FORMAT Null
SELECT 1 INTO OUTFILE '{out}'
SELECT 1 INTO OUTFILE '{out}' FORMAT CSV
SELECT 1 INTO OUTFILE '{out}' APPEND
SELECT 1 INTO OUTFILE '{out}' AND STDOUT
SELECT 1 UNION ALL SELECT 2 INTO OUTFILE '{out}' TRUNCATE FORMAT CSV

--- group: settings; status: 403; claimed: validation limits
SELECT 1 SETTINGS readonly = 0
SELECT 1 SETTINGS max_execution_time = 0
SELECT 1 SETTINGS max_memory_usage = 0
SELECT 1 SETTINGS max_threads = 64
SELECT 1 FORMAT CSV SETTINGS max_threads = 64
SELECT 1 UNION ALL SELECT 2 SETTINGS limit = 0, max_result_bytes = 0

--- group: nested settings, and settings without effect; status: 403; claimed: validation
SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)
WITH x AS (SELECT 1 SETTINGS readonly = 0) SELECT * FROM x
SELECT 1 UNION ALL SELECT 2 SETTINGS max_result_rows = 0
SELECT (SELECT 1 SETTINGS max_result_bytes = 0)
SELECT 1 WHERE 1 IN (SELECT 1 SETTINGS allow_introspection_functions = 1)

--- group: tables of others; status: 403; claimed: user validation
SELECT * FROM {far}
SELECT secret FROM {near}
SELECT * FROM near_canary
SELECT (SELECT max(secret) FROM {far})
SELECT toUInt32((SELECT max(secret) FROM {far}))
SELECT toUInt32((SELECT max(secret) FROM near_canary))
WITH (SELECT max(secret) FROM {far}) AS s SELECT s
WITH x AS (SELECT secret FROM {far}) SELECT * FROM x
SELECT * FROM (WITH near_canary AS (SELECT 'x' AS secret) SELECT secret FROM near_canary), near_canary AS n
SELECT 1 UNION ALL SELECT length(secret) FROM {far}
SELECT secret FROM {far} INTERSECT SELECT secret FROM {far}
SELECT 'x' EXCEPT SELECT secret FROM {far}
SELECT count() FROM {events} AS e CROSS JOIN {far} AS f
SELECT f.secret FROM {events} AS e RIGHT JOIN {far} AS f ON e.user_id = f.secret
SELECT 1 WHERE 'x' IN {far}
SELECT 1 WHERE 'x' IN near_canary
SELECT 1 WHERE 'x' NOT IN (SELECT secret FROM {far})
SELECT 1 WHERE 'x' GLOBAL IN near_canary
SELECT in('x', near_canary)
SELECT 1 WHERE EXISTS (SELECT 1 FROM {far})
SELECT secret FROM {far} FINAL
SELECT secret FROM {far} ARRAY JOIN [1] AS a
SELECT * FROM view(SELECT secret FROM {far})
SELECT * FROM values('a String', (SELECT max(secret) FROM {far}))
SELECT * FROM numbers((SELECT length(max(secret)) FROM {far}))
SELECT arrayMap(x -> (SELECT max(secret) FROM {far}), [1])
SELECT max(secret) OVER () FROM {far}
SELECT 1 LIMIT (SELECT length(max(secret)) FROM {far})
SELECT 1 ORDER BY (SELECT max(secret) FROM {far})
SELECT 1 HAVING 'x' IN (SELECT secret FROM {far})
WITH RECURSIVE r AS (SELECT secret FROM {far} UNION ALL SELECT secret FROM r WHERE 0) SELECT * FROM r
SELECT COLUMNS('secret') FROM {far}
SELECT * EXCEPT (nothing) FROM {far}
SELECT {far_database}.canary.secret FROM {far_database}.canary
SELECT * FROM `{far_database}`.`canary`
SELECT * FROM "{far_database}"."canary" AS `default.ai_analytics_events`
FROM {far} SELECT secret

--- group: system tables; status: 403; claimed: user validation
SELECT * FROM system.processes
SELECT * FROM system.users
SELECT query FROM system.query_log
SELECT * FROM system.grants
SELECT * FROM system.clusters
SELECT name, value FROM system.server_settings
SELECT * FROM system.disks
SELECT * FROM system.parts
SELECT * FROM information_schema.schemata
SELECT * FROM INFORMATION_SCHEMA.VIEWS

--- group: system tables readable without grants; status: 403; claimed: validation
SELECT 'a name' IN system.contributors
SELECT tuple('UTC') IN system.time_zones
SELECT 1 IN system.`one.two`
SELECT 1 IN `system.contributors`
SELECT 1 IN a.system.one
SELECT name FROM system.tables
SELECT * FROM system.databases
SELECT * FROM system.columns
SELECT * FROM system.settings
SELECT * FROM system.functions
SELECT * FROM system.contributors
SELECT * FROM system.build_options

--- group: table functions with effects; status: 403; claimed: user validation limits
SELECT * FROM file('{file}', 'LineAsString')
SELECT * FROM File('{file}', 'LineAsString')
SELECT * FROM url('http://127.0.0.1:{port}/', 'LineAsString', 'line String')
SELECT * FROM URL('http://127.0.0.1:{port}/', 'LineAsString', 'line String')
SELECT * FROM s3('http://127.0.0.1:{port}/b/x.csv', 'CSV', 'a String')
SELECT * FROM gcs('http://127.0.0.1:{port}/b/x.csv', 'CSV', 'a String')
SELECT * FROM remote('127.0.0.1:{port}', system.one)
SELECT * FROM remote('127.0.0.1:{port}', '{far_database}', 'canary')
SELECT * FROM remoteSecure('127.0.0.1:{port}', system.one)
SELECT * FROM mysql('127.0.0.1:{port}', 'a', 'b', 'c', 'd')
SELECT * FROM postgresql('127.0.0.1:{port}', 'a', 'b', 'c', 'd')
SELECT * FROM mongodb('127.0.0.1:{port}', 'a', 'b', 'c', 'd', 'x Int8')
SELECT * FROM redis('127.0.0.1:{port}', 'k', 'k String')
SELECT * FROM sqlite('{file}', 't')
SELECT * FROM odbc('DSN=x', 'd', 't')
SELECT * FROM jdbc('jdbc:x', 'd', 't')
SELECT * FROM executable('cat {file}', 'LineAsString', 'line String')
SELECT * FROM hdfs('hdfs://127.0.0.1:{port}/x', 'CSV', 'a String')
SELECT * FROM azureBlobStorage('http://127.0.0.1:{port}/', 'c', 'x.csv', 'a', 'b', 'CSV', 'auto', 'a String')
SELECT * FROM iceberg('http://127.0.0.1:{port}/b/')
SELECT * FROM deltaLake('http://127.0.0.1:{port}/b/')
SELECT (SELECT count() FROM file('{file}', 'LineAsString'))
SELECT 1 WHERE 'x' IN (SELECT line FROM file('{file}', 'LineAsString', 'line String'))
WITH x AS (SELECT * FROM file('{file}', 'LineAsString')) SELECT * FROM x
SELECT * FROM view(SELECT * FROM file('{file}', 'LineAsString'))
SELECT * FROM numbers((SELECT count() FROM file('{file}', 'LineAsString')))

--- group: table functions over other tables; status: 403; claimed: user validation
SELECT * FROM loop({far})
SELECT * FROM loop('{far_database}', 'canary')
SELECT * FROM merge('{far_database}', '.*')
SELECT * FROM merge('.*', 'canary')
SELECT * FROM merge(REGEXP('.*'), 'canary')
SELECT * FROM dictionary('x')
SELECT * FROM cluster('default', {far})
SELECT * FROM clusterAllReplicas('default', {far})
SELECT * FROM mergeTreeIndex('{far_database}', 'canary')
SELECT * FROM filesystem('/tmp')

--- group: table functions that have not been reviewed; status: 403; claimed: validation
SELECT * FROM generateRandom('a String', 1, 1000) LIMIT 1
SELECT * FROM fuzzQuery('SELECT 1')
SELECT * FROM viewIfPermitted(SELECT secret FROM {far} ELSE null('secret String'))
SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))
SELECT * FROM format('LineAsString', 'x')
SELECT * FROM input('a Int8')
SELECT * FROM eval('SELECT 1')

--- group: files by name; status: 403; claimed: validation
SELECT * FROM '{file}'
SELECT * FROM `{file}`
SELECT * FROM {database}.`{file}`
SELECT * FROM 'http://127.0.0.1:{port}/?query=SELECT+42'
SELECT 1 WHERE 'x' IN `{file}`

--- group: ends an embedded server; status: 403; claimed: validation; never: without validation
SELECT * FROM Python(x)
SELECT * FROM python('x')

--- group: functions that read elsewhere; status: 403; claimed: validation
SELECT arrayMap(file, ['{file}'])
SELECT arrayMap(`file`, ['{file}'])
SELECT arrayMap((file) AS f, ['{file}'])
SELECT arraySort(hostName, [1])
SELECT mapApply(hostName, map('a', 'b'))
SELECT arrayFold(hostName, [1], '')
SELECT arrayMap(x -> arrayMap(file, [x]), ['{file}'])
SELECT * APPLY(x -> arrayMap(file, [x])) FROM (SELECT '{file}')
SELECT arrayMap(arrayReduce, ['groupConcat(hostName())'], [['a']])
SELECT file('{file}')
SELECT FILE('{file}')
SELECT `file`('{file}')
SELECT arrayMap(x -> file(x), ['{file}'])
SELECT * APPLY(file) FROM (SELECT '{file}' AS f)
SELECT * APPLY(x -> file(x)) FROM (SELECT '{file}' AS f)
SELECT COLUMNS('f') APPLY(file) FROM (SELECT '{file}' AS f)
SELECT * REPLACE(file(f) AS f) FROM (SELECT '{file}' AS f)
WITH (x -> file(x)) AS f SELECT f('{file}')
SELECT count() FROM {events} WHERE length(file('{file}')) > 0
SELECT 1 ORDER BY file('{file}')
SELECT 1 LIMIT length(file('{file}'))
SELECT if(0, file('{file}'), '')
SELECT file('{file}') OVER ()
SELECT CASE WHEN 1 THEN file('{file}') END
SELECT * FROM values('a String', file('{file}'))
SELECT * FROM numbers(length(file('{file}')))
SELECT sum(length(file('{file}'))) FROM numbers(2)
SELECT (SELECT file('{file}'))
SELECT [file('{file}')][1]
SELECT 1 AS a, file('{file}') IN ('x')
SELECT dictGet('d', 'a', 1)
SELECT dictGetOrDefault('d', 'a', 1, 2)
SELECT dictHas('d', 1)
SELECT joinGet('{database}.j', 'a', 1)
SELECT hasColumnInTable('{far_database}', 'canary', 'secret')
SELECT catboostEvaluate('{file}', 1)
SELECT regionToName(1)
SELECT hostName()
SELECT hostname()
SELECT fqdn()
SELECT fullHostName()
SELECT currentUser()
SELECT user()
SELECT currentProfiles(), enabledProfiles(), defaultProfiles()
SELECT currentRoles(), enabledRoles()
SELECT buildId()
SELECT uptime()
SELECT serverUUID()
SELECT displayName()
SELECT getServerPort('tcp_port')
SELECT tcpPort()
SELECT getSetting('max_threads')
SELECT getSettingOrDefault('x', 1)
SELECT getServerSetting('max_connections')
SELECT getMergeTreeSetting('index_granularity')
SELECT getMacro('shard')
SELECT getOSKernelVersion()
SELECT getClientHTTPHeader('X')
SELECT globalVariable('version')
SELECT queryID(), initialQueryID()
SELECT connectionId()
SELECT filesystemAvailable(), filesystemCapacity(), filesystemUnreserved()
SELECT zookeeperSessionUptime()
SELECT shardNum(), shardCount()
SELECT demangle('x')
SELECT addressToLine(1)
SELECT logTrace('x')
SELECT showCertificate()
SELECT aiGenerate('x')
SELECT naiveBayesClassifier('x', 'y')
SELECT generateSerialID('x')
SELECT formatRow('CSV', 1)
SELECT throwIf(1)
SELECT arrayReduce('flameGraph', [1])
SELECT arrayReduce('aggThrow', [1])
SELECT arrayReduce(concat('s', 'um'), [1])
SELECT aggThrow(0.5)(1)
SELECT flameGraph(1)
SELECT __actionName(1, 'x')
SELECT noSuchFunction(1)

--- group: expressions in strings that ClickHouse evaluates; status: 403; claimed: validation
SELECT arrayReduce('groupConcat(currentUser())' AS "x, constant_value: 'sum', constant_value_type: String⏎Identifier foo", ['a', 'b'])
SELECT b FROM values('a String, b String ALIAS currentUser()' AS "x, constant_value: 'a String', constant_value_type: String⏎Identifier foo", ('x'))
SELECT * FROM values(concat('a String, b String ALIAS currentUser()', '') AS "x, function_name: tuple, function_type: ordinary⏎Identifier foo", ('x'))
SELECT arrayReduce('groupConcat(toString(sleep(1)))' AS "x, constant_value: 'sum', constant_value_type: String⏎Identifier foo", ['a', 'b'])
SELECT arrayReduce('groupConcat(file($${file}$$))', ['a', 'b'])
SELECT arrayReduce($$groupConcat(file('{file}'))$$, ['a', 'b'])
SELECT arrayReduce('groupConcat(file($${file}$$))' AS `a,b`, ['a', 'b'])
SELECT arrayReduce('groupConcat(file($${file}$$))' AS `x, constant_value: 'sum', constant_value_type: String`, ['a', 'b'])
SELECT arrayReduceInRanges('groupConcat(file($${file}$$))', [(1, 2)], ['a', 'b'])
SELECT initializeAggregation('groupConcat(file($${file}$$))', 'a')
SELECT arrayReduce('groupConcat(hostName())', ['a', 'b'])
SELECT arrayReduce('quantile(length(hostName()))', [1])
SELECT arrayReduce('sum, groupConcat(1)', [1])
WITH 'groupConcat(hostName())' AS f SELECT arrayReduce(f, ['a', 'b'])
SELECT b FROM values('a String, b String ALIAS file($${file}$$)', ('x'))
SELECT arrayReduce('groupConcat(file($${file}$$))', ['a', 'b']) AS `a, function_name: lower, function_type: ordinary, b`
SELECT b FROM values('a String, b String ALIAS file($${file}$$)', ('x')) AS `x, table_function_name: numbers, y`
SELECT * FROM file('{file}', 'LineAsString') AS `x, table_function_name: numbers, y`
SELECT b FROM values($$a String, b String ALIAS file('{file}')$$, ('x'))
SELECT b FROM values('a String, b ALIAS file($${file}$$)', ('x'))
SELECT b FROM values('a String, b DEFAULT (file(a))', ('{file}', 'x'))
SELECT b FROM values('a String,⏎b String ALIAS file($${file}$$)', ('x'))
SELECT b FROM values('a String, b String /* */ ALIAS file($${file}$$)', ('x'))
SELECT b FROM values('a String, b String ALIAS file($${file}$$)' AS `x,y`, ('x'))
SELECT b FROM values('a String, b String ALIAS file($${file}$$)' AS `x, constant_value: 1`, ('x'))
SELECT b FROM values('a String, b UInt8 ALIAS throwIf(1, file($${file}$$))', ('x'))
SELECT b FROM values('a String, b UInt8 ALIAS length(hostName())', ('x'))
WITH 'a String, b String ALIAS file($${file}$$)' AS s SELECT b FROM values(s, ('x'))
WITH 'a String, b String ALIAS file($${file}$$)' AS s SELECT b FROM values(identity(s), ('x'))
WITH 'a String, b String ALIAS file($${file}$$)' AS s SELECT b FROM values(s AS `x, constant_value: 1`, ('x'))
SELECT * FROM values('a Int8 TTL now() + toIntervalDay(length(hostName()))', (1))
SELECT * FROM null('a String, b String DEFAULT file($${file}$$)')
SELECT * FROM null('a ' || 'String, b String ALIAS hostName()')
WITH 'a String, b String ALIAS hostName()' AS s SELECT * FROM null(s)

--- group: tables in such strings; status: 403; claimed: user validation
SELECT arrayReduce('groupConcat((SELECT max(secret) FROM {far}))', ['a', 'b'])
SELECT arrayReduceInRanges('groupConcat((SELECT max(secret) FROM near_canary))', [(1, 2)], ['a', 'b'])
SELECT b FROM values('a String, b String ALIAS (SELECT max(secret) FROM near_canary)', ('x'))

--- group: aliases of other names; status: 403; claimed: user validation
WITH near_canary AS t SELECT 'x' IN t
WITH near_canary AS t SELECT in('x', (t))
WITH near_canary AS t SELECT 'x' NOT IN t, 'x' GLOBAL IN t
WITH near_canary AS ai_analytics_events SELECT 'x' IN ai_analytics_events
WITH near_canary AS a, a AS t SELECT 'x' IN t
WITH t AS (SELECT 1), near_canary AS t SELECT 'x' IN t
WITH near_canary AS `a.b` SELECT 'x' IN `a.b`
WITH near_canary AS `t, identifier: y` SELECT 'x' IN `t, identifier: y`
WITH {near} AS t SELECT 'x' IN t
WITH {far} AS t SELECT 'x' IN t
WITH {far_database} AS t SELECT 'x' IN t.canary
WITH near_canary AS t SELECT arrayFilter(x -> x IN t, ['x'])
WITH near_canary AS t SELECT x FROM (SELECT 'x' IN t AS x)
WITH near_canary AS t, (SELECT 'x' IN t) AS x SELECT x
WITH near_canary AS t SELECT 'x' IN t UNION ALL SELECT 'x' IN t
SELECT x FROM (WITH near_canary AS t SELECT 'x' IN t AS x)
SELECT * REPLACE('x' IN near_canary AS number) FROM numbers(1)
SELECT 1 WHERE 'x' IN ((near_canary))
SELECT globalNotNullInIgnoreSet('x', near_canary)
WITH system.users AS t SELECT ('x',) IN t

--- group: files by an alias of their name; status: 403; claimed: validation
WITH `{file}` AS t SELECT 'x' IN t

--- group: other ways to a table; status: 400 403; claimed: user validation
SELECT * FROM {events} PASTE JOIN {far}
SELECT * FROM (SELECT 1 AS a) PASTE JOIN {near}
SELECT secret FROM {far} INTERSECT ALL SELECT secret FROM {near}
SELECT 'x' = ANY(SELECT secret FROM near_canary)
SELECT 'x' > ALL(SELECT secret FROM {far})
SELECT * FROM near_canary AS ai_analytics_events
WITH near_canary AS (SELECT secret FROM near_canary) SELECT * FROM near_canary
WITH ai_analytics_events AS (SELECT secret FROM {far}) SELECT * FROM ai_analytics_events
WITH t AS MATERIALIZED (SELECT secret FROM {far}) SELECT * FROM t
WITH t(secret) AS (SELECT * FROM near_canary) SELECT * FROM t
TABLE near_canary
SELECT * FROM (TABLE near_canary)
SELECT * FROM far_place/**/./**/canary
SELECT * FROM “near_canary”
SELECT * FROM {{x:Identifier}}
SELECT {{x:Identifier}} FROM {far}
SELECT * FROM {events}(x = 1)
SELECT $a$ $b$ $a$ AS x, secret FROM {far}
SELECT * APPLY(x -> (SELECT max(secret) FROM {far})) FROM numbers(1)
SELECT COLUMNS('.*') REPLACE((SELECT max(secret) FROM {far}) AS number) FROM numbers(1)
SELECT quantile((SELECT 0.5 FROM {far}))(number) FROM numbers(3)
SELECT number FROM numbers(1) ORDER BY number WITH FILL FROM (SELECT length(max(secret)) FROM {far}) TO 100
SELECT number AS n, 'a' AS v FROM numbers(3) ORDER BY n WITH FILL TO 5 INTERPOLATE (v AS (SELECT max(secret) FROM {far}))
SELECT number FROM numbers(3) LIMIT 1 BY (SELECT max(secret) FROM {far})
SELECT 1 WINDOW w AS (ORDER BY (SELECT max(secret) FROM {far}))
SELECT (SELECT secret FROM near_canary AS n WHERE n.secret != toString(o.number)) FROM numbers(1) AS o
SELECT * FROM system.numbers_mt LIMIT 1 UNION ALL SELECT length(secret) FROM near_canary
SELECT * FROM merge('near')
SELECT * FROM loop(near_canary)
SELECT * FROM mergeTreeProjection('{far_database}', 'canary', 'x')

--- group: other ways to a file or a command; status: 400 403; claimed: validation
SELECT * FROM (EXPLAIN SELECT 1)
SELECT * FROM (EXPLAIN QUERY TREE SELECT (SELECT max(secret) FROM {far}))
SELECT * FROM (SHOW TABLES)
SELECT (EXPLAIN SELECT 1)
SELECT file($x${file}$x$)
SELECT $x$'$x$, file('{file}') --'
SELECT 1 AS x /*! , file('{file}') */, file('{file}')
SELECT 1 --⏎, file('{file}')
SELECT 1 #!⏎, file('{file}')
SELECT "file"('{file}')
SELECT * EXCEPT(number) APPLY toString APPLY file FROM (SELECT 1 AS number, '{file}' AS f)
SELECT * REPLACE STRICT(file('{file}') AS number) FROM numbers(1)
SELECT number AS n, 'a' AS v FROM numbers(3) ORDER BY n WITH FILL TO 5 INTERPOLATE (v AS file('{file}'))
SELECT groupConcat(file('{file}'))(number) FROM numbers(3)
SELECT dateDiff(file('{file}'), now(), now())
SELECT toDateTime(0, file('{file}'))
SELECT number FROM numbers(1) QUALIFY file('{file}') != ''
SELECT count() FILTER (WHERE file('{file}') != '') FROM numbers(1)
SELECT * FROM `file`('{file}', 'LineAsString')
SELECT * FROM/**/fIlE('{file}','LineAsString')
SELECT initializeAggregation('flameGraph', 1)
SELECT arrayReduceInRanges('flameGraph', [(1, 1)], [1])
SELECT evalMLMethod(1, 2)
SELECT formatRowNoNewline('CSV', 1)
SELECT * FROM {events} SETTINGS additional_table_filters = {{'default.ai_analytics_events': 'file(\'{file}\') != \'\''}}
SELECT 1 SETTINGS param_x = 'near_canary'
SELECT 1 SETTINGS dialect = 'prql'
SELECT 1 SETTINGS profile = 'default'
SELECT 1 LIMIT 1 SETTINGS limit = 0, max_threads = 64
EXECUTE AS default SELECT 1
EXECUTE IMMEDIATE 'SELECT 1'
CREATE TEMPORARY TABLE t (a Int8)
COPY {events} TO '{out}'
file('{file}')
1 + file('{file}')
SELECT 1 \G
SELECT $$ $$; TRUNCATE TABLE {events}
SELECT '\'; SELECT secret FROM near_canary; --'; SELECT secret FROM near_canary

--- group: waiting; status: 403; claimed: validation
SELECT sleep(3)
SELECT sleepEachRow(0.1) FROM numbers(5)
SELECT SLEEP(1)
SELECT arrayMap(x -> sleep(x), [1])
SELECT * APPLY(sleep) FROM (SELECT 1 AS s)

--- group: forged trees; status: 403 400; claimed: user validation
SELECT secret FROM {far} AS "x, identifier: ai_analytics_events⏎Identifier foo"
SELECT secret FROM {far} AS `x, identifier: ai_analytics_events\x0aIdentifier foo`
SELECT secret FROM {far} AS “x, identifier: ai_analytics_events⏎Identifier foo”
SELECT 1 AS `a⏎LIST id: 9`, secret FROM {far}
SELECT 1 AS `d, identifier: {events}`, secret FROM {far}
SELECT * FROM {far} AS `a, identifier: {events}`
SELECT * FROM {far} AS `a⏎        IDENTIFIER id: 5, identifier: {events}`
SELECT `i⏎  JOIN TREE⏎    IDENTIFIER id: 9, identifier: {events}`, secret FROM {far}
SELECT 'x' IN `near_canary⏎    ARGUMENTS`
SELECT `a⏎JOIN TREE` IN near_canary
SELECT `a⏎                ` IN (near_canary)
SELECT tuple(`a⏎  X`, `b⏎LIST id: 3, nodes: 0`) IN near_canary
SELECT ('x' IN near_canary) AS `a, function_name: lower, function_type: ordinary, b`
SELECT ('x' IN near_canary) AS `a, function_name: lower, function_type: ordinary`
SELECT 1 FROM numbers(1) ORDER BY ('x' IN near_canary) AS `a, function_name: lower, function_type: ordinary, b`
SELECT * FROM {far} AS `a, identifier: {events}, final: 1`
SELECT * FROM merge('near') AS `x, table_function_name: numbers, y`
WITH `x⏎  JOIN TREE` AS (SELECT secret FROM {far}) SELECT * FROM `x⏎  JOIN TREE`

--- group: explosions; status: 422 504; claimed: limits
SELECT count() FROM numbers(1000000) AS a, numbers(1000000) AS b WHERE sipHash64(a.number, b.number) = 1
SELECT count() FROM numbers(10000000000000)
SELECT groupArray(number) FROM numbers(1000000000)
SELECT number, groupArray(a.number) FROM numbers(100000000) AS a GROUP BY number
SELECT count() FROM numbers(100000000) WHERE length(repeat(toString(number), 1000)) = 1
SELECT arrayMap(x -> range(100000), range(100000))
SELECT * FROM numbers(100000000) ORDER BY sipHash64(number), toString(number) LIMIT 1 BY number
SELECT uniqExact(number) FROM numbers(1000000000)
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT r.n + 1 FROM r CROSS JOIN numbers(10) AS m) SELECT count() FROM r
SELECT a.number FROM numbers(300000000) AS a JOIN numbers(300000000) AS b ON a.number = b.number WHERE sipHash64(a.number) = 1
SELECT repeat('x', 1000000) FROM numbers(100000)
SELECT groupArray(repeat('x', 100000)) FROM numbers(100000)

--- group: time zones and types; status: 403; claimed: validation
SELECT toDateTime(0, 'file:{file}')
SELECT toDateTime(0, 'file:/usr/share/zoneinfo/UTC')
SELECT toDateTime(0, concat('fi', 'le:{file}'))
SELECT toDateTime(0, char(102, 105, 108, 101) || ':{file}')
WITH 'file:{file}' AS zone SELECT toDateTime(0, zone)
SELECT toDateTime(0, (SELECT 'file:{file}'))
SELECT arrayMap(zone -> toDateTime(0, zone), ['file:{file}'])
SELECT arrayMap(toDateTime, [0], ['file:{file}'])
SELECT toTimeZone(timestamp, 'file:{file}') FROM {events}
SELECT now('file:{file}')
SELECT formatDateTime(now(), '%F', 'file:{file}')
SELECT dateDiff('day', now(), now(), 'file:{file}')
SELECT makeDateTime64(2020, 1, 1, 1, 1, 1, 1, 3, 'file:{file}')
SELECT toStartOfInterval(now(), INTERVAL 1 DAY, 'file:{file}')
SELECT addDays(now(), 1, 'file:{file}')
SELECT toString(now(), 'file:{file}')
SELECT toDateTime(0, 'Fixed/UTC+05:30:00')
SELECT parseDateTimeInJodaSyntax('2020 file:{file}', 'yyyy z')
SELECT parseDateTimeInJodaSyntaxOrNull(properties, concat('yyyy ', 'z')) FROM {events}
SELECT CAST(0, 'DateTime(\'file:{file}\')')
SELECT CAST(0, concat('DateTime(', '\'file:{file}\')'))
SELECT CAST(0 AS DateTime('file:{file}'))
SELECT 0::DateTime64(3, 'file:{file}')
SELECT 0::TIMESTAMP('file:{file}')
SELECT [0]::Array(DateTime('file:{file}'))
SELECT accurateCastOrNull(0, 'DateTime(\'file:{file}\')')
SELECT reinterpret('aaaa', 'DateTime(\'file:{file}\')')
SELECT JSONExtract('[1]', 'Array(DateTime(\'file:{file}\'))')
SELECT JSONExtract('[1]', 1, concat('DateTime', '(\'file:{file}\')'))
SELECT dynamicElement(1::Dynamic, 'DateTime(\'file:{file}\')')
SELECT getSubcolumn('{{"a":1}}'::JSON, 'a.:`DateTime(\'file:{file}\')`')
SELECT tupleElement('{{"a":1}}'::JSON, 'a.:`DateTime(\'file:{file}\')`')
SELECT j.a.:`DateTime('file:{file}')` FROM (SELECT '{{"a":1}}'::JSON AS j)
SELECT defaultValueOfTypeName('DateTime(\'file:{file}\')')
SELECT * FROM values('a DateTime(\'file:{file}\')', 1)
SELECT CAST(unhex('00'), 'AggregateFunction(rankCorr, Float64, Float64)')
SELECT finalizeAggregation(unhex('00')::AggregateFunction(sum, UInt64))
SELECT defaultValueOfTypeName('AggregateFunction(aggThrow, Int8)')
SELECT CAST(properties, 'JSON(SKIP REGEXP \'(a{{1,30}}){{1,30}}b\')') FROM {events}
SELECT hostName().*
SELECT (SELECT secret FROM {far}).*
SELECT file('{file}').COLUMNS('a')
