"""The delivery protocol, from polled records to inserted rows.

Does not depend on any client library, environment variable or signal.
"""
