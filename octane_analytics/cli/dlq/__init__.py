"""Options and output of `octane-analytics dlq`."""
