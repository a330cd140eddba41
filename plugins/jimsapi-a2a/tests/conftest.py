"""The servers that the suites share."""

from tests.plugins.talking import people

__all__ = ["people"]
