"""Embedded ClickHouse and Kafka for development and tests, and a generator of events.

Real ClickHouse and librdkafka's mock Kafka cluster, each in a child process with real sockets on
loopback, and a seeded generator of telemetry. Not for production.
"""
