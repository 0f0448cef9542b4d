"""Command line: each command composes the parts it needs, runs them and returns an exit code."""
