"""The server that the suites share."""

from tests.plugins.talking import bot, client, key, people, served, settings

__all__ = ["bot", "client", "key", "people", "served", "settings"]
