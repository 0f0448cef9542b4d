"""ClickHouse over its native protocol: the only package that imports clickhouse_driver."""
