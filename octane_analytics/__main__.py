"""The command, also as `python -m octane_analytics`: quiet where Ctrl-C comes before it has begun."""

import signal

# While the imports run nobody can make anything of an interrupt: it ends the process, without a trace.
# A sub-command that has been imported gets it as KeyboardInterrupt again.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from octane_analytics.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
