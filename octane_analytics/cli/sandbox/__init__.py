"""The processes of `octane-analytics sandbox` and what it prints."""
