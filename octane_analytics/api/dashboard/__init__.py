"""The dashboard: static pages for people, which ask the API's own endpoints."""
