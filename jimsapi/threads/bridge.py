"""Calls from the worker thread of a pipeline to the event loop of its run."""

import asyncio
import concurrent.futures
import threading
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from jimsapi.threads.errors import RunClosed

Result = TypeVar("Result")


class Bridge:
    """Runs functions and coroutines in the event loop that created it, for callers in other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def is_needed(self) -> bool:
        """Return whether the current thread is not the loop's thread."""
        return threading.get_ident() != self._thread

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function in the loop, and wait for it. Returns what it returns, and raises what it raises.

        Raises `RunClosed` if the loop is closed.
        """
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

    def begin(self, coroutine: Coroutine[Any, Any, Result]) -> Coroutine[Any, Any, Result]:
        """Run a coroutine in the loop. Returns an awaitable of its result, which need not be awaited.

        If the current thread has no running event loop, the method waits until the coroutine has ended, and raises what
        it raises. Raises `RunClosed` if the loop of the run is closed.
        """
        try:
            begun = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise _closed() from None
        return Done(begun.result()) if _get_running_loop() is None else start(_result_of(begun))


class Done(Coroutine[Any, Any, Result]):
    """A coroutine that has already ended. Awaiting it returns the result. It need not be awaited."""

    __slots__ = ("result",)

    def __init__(self, result: Result) -> None:
        self.result = result

    def send(self, value: Any) -> Any:
        """Raise `StopIteration` with the result, as a coroutine does."""
        raise StopIteration(self.result)

    def throw(self, *error: Any) -> Any:
        """Raise the error, as a coroutine that has not started does."""
        return super().throw(*error)

    def close(self) -> None:
        """Do nothing, since the call has ended."""

    def __await__(self) -> Generator[Any, None, Result]:
        yield from ()
        return self.result


class Started(Coroutine[Any, Any, Result]):
    """A coroutine that has run up to its first wait. Awaiting it runs the rest. It need not be awaited."""

    __slots__ = ("_awaited", "_waits_for", "_work")

    def __init__(self, work: Coroutine[Any, Any, Result], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for
        self._awaited = False

    def send(self, value: Any) -> Any:
        """Return the future that the call waits for. Further calls resume the coroutine."""
        if self._awaited:
            return self._work.send(value)
        self._awaited = True
        return self._waits_for

    def throw(self, *error: Any) -> Any:
        """Raise the error at the point where the coroutine waits."""
        self._awaited = True
        return self._work.throw(*error)

    def close(self) -> None:
        """End the coroutine at the point where it waits."""
        self._work.close()

    def __await__(self) -> "Started[Result]":
        return self

    def __iter__(self) -> "Started[Result]":
        return self

    def __next__(self) -> Any:
        return self.send(None)


def start(work: Coroutine[Any, Any, Result]) -> Coroutine[Any, Any, Result]:
    """Run a coroutine up to its first wait, and return an awaitable of its result. Raises what that part raises."""
    try:
        waits_for = work.send(None)
    except StopIteration as end:
        return Done(end.value)
    return Started(work, waits_for)


async def _result_of(begun: "concurrent.futures.Future[Result]") -> Result:
    return await asyncio.wrap_future(begun)


def _closed() -> RunClosed:
    return RunClosed("the server has stopped; what the pipeline sends now is not stored")
