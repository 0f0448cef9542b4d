"""Every setting: name, default, unit, meaning, and where its value came from."""
