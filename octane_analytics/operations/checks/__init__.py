"""Checks of `octane-analytics check`, one module for each subject."""
