"""Operator tasks: lag, offsets, dead-letter messages, and checks before a start."""
