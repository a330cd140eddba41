"""From the thread of a pipeline to the event loop of its run."""

import asyncio
import concurrent.futures
import threading
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

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

    def begin(self, coroutine: Coroutine[Any, Any, Result]) -> Coroutine[Any, Any, Result]:
        """Run a coroutine in the loop. Where no other event loop runs, it has ended when this returns.

        Raises `RunClosed` if the loop is closed, and what the coroutine raises if it has ended.
        """
        try:
            begun = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise _closed() from None
        return Done(begun.result()) if _get_running_loop() is None else start(_result_of(begun))


class Done(Coroutine[Any, Any, Result]):
    """A call that has ended with a result; it may be awaited, and need not be."""

    __slots__ = ("_result",)

    def __init__(self, result: Result) -> None:
        self._result = result

    def send(self, value: Any) -> Any:
        """Return the result, as a coroutine does."""
        raise StopIteration(self._result)

    def throw(self, *error: Any) -> Any:
        """Raise an error, as a coroutine that has not begun does."""
        return super().throw(*error)

    def close(self) -> None:
        """Do nothing: the call has ended."""

    def __await__(self) -> Generator[Any, None, Result]:
        yield from ()
        return self._result


class Started(Coroutine[Any, Any, Result]):
    """A call that has begun and waits for something; it may be awaited, and need not be."""

    __slots__ = ("_awaited", "_waits_for", "_work")

    def __init__(self, work: Coroutine[Any, Any, Result], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for
        self._awaited = False

    def send(self, value: Any) -> Any:
        """Return what the call waits for, or go on with it."""
        if self._awaited:
            return self._work.send(value)
        self._awaited = True
        return self._waits_for

    def throw(self, *error: Any) -> Any:
        """Raise an error where the call waits."""
        self._awaited = True
        return self._work.throw(*error)

    def close(self) -> None:
        """End the call where it waits."""
        self._work.close()

    def __await__(self) -> "Started[Result]":
        return self

    def __iter__(self) -> "Started[Result]":
        return self

    def __next__(self) -> Any:
        return self.send(None)


def start(work: Coroutine[Any, Any, Result]) -> Coroutine[Any, Any, Result]:
    """Do now what a call does before it first waits. Raises what that raises."""
    try:
        waits_for = work.send(None)
    except StopIteration as end:
        return Done(end.value)
    return Started(work, waits_for)


async def _result_of(begun: "concurrent.futures.Future[Result]") -> Result:
    return await asyncio.wrap_future(begun)


def _closed() -> RunClosed:
    return RunClosed("the server has stopped; what the pipeline says now is not stored")
