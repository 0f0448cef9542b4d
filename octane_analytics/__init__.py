"""Events from Kafka into ClickHouse exactly once, and answers about them."""

__version__ = "1.0.0"
