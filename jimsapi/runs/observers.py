"""Calls of observers, whose errors must not affect requests and runs."""

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

logger = logging.getLogger("jimsapi.observers")

Record = TypeVar("Record")


class Observers(Generic[Record]):
    """The functions that get one kind of record. `names` name them in the log; their `repr` does by default."""

    __slots__ = ("_failed", "_names", "calls")

    def __init__(self, calls: Sequence[Callable[[Record], None]] = (), names: Sequence[str] = ()) -> None:
        self.calls = tuple(calls)
        self._names = dict(zip(map(id, self.calls), names or map(repr, self.calls), strict=True))
        self._failed: set[int] = set()

    def notify(self, record: Record) -> None:
        """Call each function with `record`. If one raises, the next one is called."""
        for call in self.calls:
            try:
                call(record)
            except (Exception, SystemExit) as error:  # the latter would end the server
                self.report(call, error)

    def report(self, call: Callable[[Record], None], error: BaseException) -> None:
        """Log the first failure of a function. Its later failures are not logged."""
        if id(call) not in self._failed:
            self._failed.add(id(call))
            text = "the observer of %s failed; its later failures are not logged"
            logger.error(text, self._names[id(call)], exc_info=error)
