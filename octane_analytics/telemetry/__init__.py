"""Metrics, logs and traces of all processes; each metric is defined once."""
