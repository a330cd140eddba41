"""Threads in which pipelines work that would block the event loop.

They are not those of asyncio or `concurrent.futures`: a call that never returns must not hold up the end of the
process, and must not keep its place from others for ever.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

IDLE_FOR = 60.0
"""Seconds after which a thread without work ends."""


class Call:
    """A function's call in a thread. `done` is set in the caller's loop; then there is a `result` or an `error`."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.given_up = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self.done: asyncio.Future[None] = self._loop.create_future()

    def work(self) -> None:
        """Call the function; it sees the context variables of who asked for the call."""
        try:
            self.result = self._context.run(self._function)
        except StopIteration as error:  # which no coroutine can raise
            self.error = RuntimeError("the pipeline raised StopIteration")
            self.error.__cause__ = error
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        """Tell the loop."""
        with suppress(RuntimeError):  # it is closed: nobody waits any longer
            self._loop.call_soon_threadsafe(self.done.set_result, None)


class WorkerThreads:
    """Up to `limit` daemon threads, each made when it is needed. Calls beyond wait for one, in order.

    A thread cannot be stopped. One whose call was cancelled gives its place to another thread, until there are as many
    of them as places.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._waiting: dict[Call, None] = {}
        self._threads = 0
        self._idle = 0  # threads without a call: those that wait for one, have just started, or are coming back
        self._given_up = 0

    async def run(self, function: Callable[[], Any], cancel: Callable[[], None] | None = None) -> Any:
        """Call a function in a thread, and return what it returns.

        If the task is cancelled while the function runs, `cancel` is called, and the task goes on waiting for the
        function; a second cancellation ends the waiting. A call that waits for a thread ends at once.
        """
        call = Call(function)
        self._begin(call)
        while not call.done.done():
            try:
                await asyncio.wait((call.done,))
            except asyncio.CancelledError:
                if call.given_up or self._withdraw(call):
                    raise
                self._give_up(call)
                if cancel is not None:
                    cancel()
        if call.given_up:
            raise asyncio.CancelledError
        if call.error is not None:
            raise call.error
        return call.result

    def _begin(self, call: Call) -> None:
        with self._changed:
            self._waiting[call] = None
            try:
                self._provide()
            except RuntimeError:  # the system starts no further thread; its caller is told, so it must not be called
                del self._waiting[call]
                raise

    def _provide(self) -> None:
        """Wake a thread for the call that waits, or start one if there may be more."""
        if len(self._waiting) <= self._idle:
            self._changed.notify()
        elif self._threads < self._allowed:
            threading.Thread(target=self._work, name="pipeline", daemon=True).start()  # it waits for our lock
            self._threads += 1
            self._idle += 1

    @property
    def _allowed(self) -> int:
        return self._limit + min(self._given_up, self._limit)

    def _withdraw(self, call: Call) -> bool:
        """Take back a call that no thread has begun. Returns whether it was one."""
        with self._changed:
            if call not in self._waiting:
                return False
            del self._waiting[call]
            return True

    def _give_up(self, call: Call) -> None:
        with self._changed:
            call.given_up = True
            self._given_up += 1
            if self._waiting:
                self._provide()

    def _work(self) -> None:
        while (call := self._next()) is not None:
            call.work()
            goes_on = self._end(call)
            call.finish()
            if not goes_on:
                return
            del call  # it holds a conversation, and the next may be long in coming

    def _next(self) -> Call | None:
        """Wait for a call; None if none comes for long, and the thread ends."""
        with self._changed:
            while not self._waiting:
                woken = self._changed.wait(IDLE_FOR)
                if not woken and not self._waiting:
                    self._idle -= 1
                    self._threads -= 1
                    return None
            self._idle -= 1
            call = next(iter(self._waiting))
            del self._waiting[call]
            return call

    def _end(self, call: Call) -> bool:
        """Count a call that has ended. Returns whether its thread takes another.

        Such a thread counts as idle before the loop gets the result. If the thread then needs a while to come back,
        the next call waits for it and starts no further thread.
        """
        with self._changed:
            self._given_up -= call.given_up
            if self._threads <= self._allowed:
                self._idle += 1
                return True
            self._threads -= 1
            return False
