"""The command line: each command composes the parts it needs, acts, and answers with an exit code."""
