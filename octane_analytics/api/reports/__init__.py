"""Named reports: their templates, parameters, cache and routes."""
