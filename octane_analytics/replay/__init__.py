"""Repair of the table from the records that Kafka still holds.

`ranges` resolves the offsets, `staging_reader` copies them into a staging table, `fill` and `rebuild`
make the target agree with the log. Staging and target are reached through the Protocols in `interfaces`.
"""
