"""Query results in the formats that clients ask for."""
