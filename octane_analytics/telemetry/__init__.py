"""What the service says of itself: metrics and logs, each name standing here once."""
