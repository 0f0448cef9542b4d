"""Entry point of the command and of `python -m octane_analytics`; Ctrl-C during imports is silent."""

import signal

# The default action of SIGINT ends the process without a traceback while the imports run.
# cli.main restores KeyboardInterrupt once a sub-command has been imported.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from octane_analytics.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
