"""Kafka through librdkafka: the only room that knows confluent_kafka.

Clients start threads of their own as soon as they are made, so each class here makes its client at
the first call: build the objects wherever you like, use them after the fork only.
"""
