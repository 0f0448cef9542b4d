"""Event format: decoding of Kafka records into the columns of the table."""
