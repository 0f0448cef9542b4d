"""Processes and output of `octane-analytics sandbox`."""
