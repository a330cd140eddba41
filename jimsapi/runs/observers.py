"""Calls of observers, whose errors must not affect requests and runs."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

logger = logging.getLogger("jimsapi.observers")

Record = TypeVar("Record")


def notify(observers: Iterable[Callable[[Record], None]], record: Record) -> None:
    """Call each of `observers` with `record`. If one raises, the error is logged and the next one is called."""
    for observer in observers:
        try:
            observer(record)
        except Exception:
            logger.exception("an observer failed at %s", type(record).__name__)
