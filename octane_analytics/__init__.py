"""Events from Kafka into ClickHouse exactly once, and answers about them."""

__version__ = "0.1.0"
