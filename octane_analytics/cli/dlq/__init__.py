"""What `octane-analytics dlq` counts and prints."""
