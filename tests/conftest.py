"""What holds for all tests."""

import signal

from hypothesis import settings

# An example that took long met a busy machine; how long things take is measured elsewhere.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Whoever starts the tests in the background of a shell has them, and all commands that they start,
# ignore Ctrl-C; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
