"""Settings: name, default, unit and description of each, and the origin of its value."""
