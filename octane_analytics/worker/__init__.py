"""Processes of `octane-analytics worker`: composed from the edges after the fork."""
