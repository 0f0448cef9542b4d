"""What holds for all tests."""

from hypothesis import settings

# An example that took long met a busy machine; how long things take is measured elsewhere.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
