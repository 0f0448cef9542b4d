"""Reading events from files and sending them to Kafka."""
