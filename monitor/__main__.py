"""Lets `python -m monitor` stand for the `icewatch` command."""

from monitor.cli import main

main()
