"""The input contract: from the bytes of a Kafka record to the columns of the table."""
