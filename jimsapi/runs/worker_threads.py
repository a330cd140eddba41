"""Worker threads for pipelines that would block the event loop.

The threads of asyncio and `concurrent.futures` do not suit: a call that never returns would prevent the process from
exiting, and would occupy its thread forever.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from types import FrameType
from typing import Any

IDLE_FOR = 60.0
"""Seconds after which a thread without work ends."""


class Call:
    """A call of a function in a worker thread. When the future `done` is done, `result` or `error` is set.

    `context` has the context variables of the task that made the call.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.given_up = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._loop = asyncio.get_running_loop()
        self.context = copy_context()
        self.done: asyncio.Future[None] = self._loop.create_future()

    def work(self) -> None:
        """Call the function, in `context`."""
        try:
            self.result = self.context.run(self._function)
        except StopIteration as error:  # a coroutine cannot raise it
            self.error = RuntimeError("the pipeline raised StopIteration")
            self.error.__cause__ = error
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        """Complete `done` in the caller's loop."""
        with suppress(RuntimeError):  # the loop is closed, so no task waits
            self._loop.call_soon_threadsafe(self.done.set_result, None)


def working_threads() -> Iterator[tuple[Context, FrameType, FrameType]]:
    """Yield the context of each call that a worker thread works on now, its innermost frame, and the frame of `work`.

    It reads the stacks of the threads, so that a call need not be registered.
    """
    for innermost in sys._current_frames().values():
        frame: FrameType | None = innermost
        while frame is not None and frame.f_code is not Call.work.__code__:
            frame = frame.f_back
        if frame is not None:
            yield frame.f_locals["self"].context, innermost, frame


class WorkerThreads:
    """Up to `limit` daemon threads, which are started when they are needed. Further calls wait in order.

    Python cannot stop a thread. If a call is cancelled and its function still runs, another thread may start in its
    place, up to `limit` additional threads.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._waiting: dict[Call, None] = {}
        self._threads = 0
        self._idle = 0  # threads without a call: those that wait for one, have just started, or are about to wait again
        self._given_up = 0

    async def run(self, function: Callable[[], Any], cancel: Callable[[], None] | None = None) -> Any:
        """Call a function in a thread. Returns what it returns, and raises what it raises.

        If the task is cancelled while the function runs, it calls `cancel` and waits until the function returns. A
        second cancellation ends that wait. If the task is cancelled while the call waits for a thread, it ends at once.
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
                self._assign_thread()
            except RuntimeError:  # the system cannot start another thread; the caller gets the error
                del self._waiting[call]
                raise

    def _assign_thread(self) -> None:
        """Wake an idle thread for a waiting call, or start one if the limit allows."""
        if len(self._waiting) <= self._idle:
            self._changed.notify()
        elif self._threads < self._allowed:
            threading.Thread(target=self._work, name="pipeline", daemon=True).start()  # it waits for `_changed`
            self._threads += 1
            self._idle += 1

    @property
    def _allowed(self) -> int:
        return self._limit + min(self._given_up, self._limit)

    def _withdraw(self, call: Call) -> bool:
        """Remove a call that no thread has started. Returns False if one has."""
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
                self._assign_thread()

    def _work(self) -> None:
        while (call := self._next()) is not None:
            call.work()
            continues = self._end(call)
            call.finish()
            if not continues:
                return
            del call  # it refers to a conversation, and the next call may come much later

    def _next(self) -> Call | None:
        """Wait for a call. Returns None if none comes for `IDLE_FOR` seconds; the thread then ends."""
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
        """Count a call that has ended. Returns whether its thread continues with other calls.

        Such a thread counts as idle before the loop gets the result, so that the next call waits for it instead of
        starting another thread.
        """
        with self._changed:
            self._given_up -= call.given_up
            if self._threads <= self._allowed:
                self._idle += 1
                return True
            self._threads -= 1
            return False
