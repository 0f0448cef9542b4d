"""The HTTP API: named reports, guarded SQL, readiness and metrics."""
