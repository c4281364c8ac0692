"""The `provenn` command: thin, every answer comes from a library function. `app` has the commands, `main` runs them."""

from provenn.api.cli.app import main

__all__ = ["main"]
