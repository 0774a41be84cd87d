"""The command `reki`."""

from reki_feast.cli.app import main

__all__ = ["main"]
