"""The command line: serving, listing plugins, checking a configuration."""

from jimsapi.cli.main import main

__all__ = ["main"]
