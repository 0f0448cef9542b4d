"""Query results encoded in the formats that clients request."""
