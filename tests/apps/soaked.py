"""The bot for load in a server that purges its records often, so that a soak sees it do that."""

from jimsapi.runs import housekeeping
from tests.apps.loaded import app

housekeeping.PURGE_EVERY = 20.0

__all__ = ["app"]
