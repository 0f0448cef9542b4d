"""Repairs the table from what Kafka still holds: the same work over a bounded source.

`ranges` says which offsets, `reading` copies them into a staging table, `filling` and `rebuilding`
bring the target to what the log says. Where staging and target live is behind the Protocol in `ports`.
"""
