"""Who calls the API, with which token, and how often."""
