"""gunicorn, its workers and the Starlette application that they serve."""
