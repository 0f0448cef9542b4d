"""ClickHouse over its native protocol: the only room that knows clickhouse_driver."""
