"""Kafka through librdkafka: the only package that imports confluent_kafka.

Clients start threads as soon as they are created, so each class here creates its client at the first
call: the objects may be built before a fork, and must be used after it only.
"""
