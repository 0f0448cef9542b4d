"""Read events from files or generate them, and send them to Kafka."""
