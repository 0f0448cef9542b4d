"""Lets `python -m octane_analytics` be the installed command."""

from octane_analytics.cli.main import main

main()
