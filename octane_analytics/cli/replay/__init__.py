"""Composition, execution and output of `octane-analytics replay`."""
