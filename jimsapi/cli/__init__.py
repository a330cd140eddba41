"""The command line: serving, checking and explaining a configuration, scaffolds, and a chat in the terminal."""

from jimsapi.cli.main import main

__all__ = ["main"]
