"""Callers, tokens and rate limits."""
