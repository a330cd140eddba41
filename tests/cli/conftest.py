"""The folder of a test, as for plugins."""

from tests.plugins.conftest import site

__all__ = ["site"]
