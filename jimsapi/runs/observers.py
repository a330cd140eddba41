"""Telling observers what happened, without letting them harm it."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

logger = logging.getLogger("jimsapi.observers")

Record = TypeVar("Record")


def notify(observers: Iterable[Callable[[Record], None]], record: Record) -> None:
    """Tell each of `observers`; one that raises is logged and the next is told."""
    for observer in observers:
        try:
            observer(record)
        except Exception:
            logger.exception("an observer failed at %s", type(record).__name__)
