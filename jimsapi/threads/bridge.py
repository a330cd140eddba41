"""From the thread of a pipeline to the event loop of its run."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from jimsapi.threads.errors import RunClosed

Result = TypeVar("Result")


class Bridge:
    """Has the event loop that made it do what other threads ask for, one thing after another."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def is_needed(self) -> bool:
        """Whether the caller is in another thread than the loop."""
        return threading.get_ident() != self._thread

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function in the loop, and wait for what it returns or raises. `RunClosed` if the loop is closed."""
        done: concurrent.futures.Future[Result] = concurrent.futures.Future()

        def work() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            raise _closed() from None
        return done.result()

    def begin(self, coroutine: Coroutine[Any, Any, Result]) -> "concurrent.futures.Future[Result]":
        """Run a coroutine in the loop. Raises `RunClosed` if the loop is closed."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise _closed() from None


class Done(Generic[Result]):
    """What has been done already; it may be awaited, and need not be."""

    __slots__ = ("_result",)

    def __init__(self, result: Result) -> None:
        self._result = result

    def __await__(self) -> Generator[Any, None, Result]:
        yield from ()
        return self._result


def _closed() -> RunClosed:
    return RunClosed("the server has stopped; what the pipeline says now is not stored")
