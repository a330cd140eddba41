"""The command line: serving, checking and explaining a configuration, replays, scaffolds, and chats in the terminal."""

from jimsapi.cli.main import main

__all__ = ["main"]
