"""Engines for a machine that has none, and events to feed them.

Real ClickHouse and librdkafka's mock Kafka cluster, each in a child process with real sockets on
loopback, and a seeded generator of telemetry. Nothing here stands in for production.
"""
