"""The watchdog, which detects code that blocks the event loop, and logs it while it still runs.

While the loop is blocked, no probe, timer or client is served. So a thread watches it: a timer of the loop records the
time of its last beat. If no beat comes, the thread reads the stack of the loop's thread, and logs the pipeline and
its line.
"""

import asyncio
import linecache
import logging
import sys
import threading
import time
from types import CodeType, FrameType, TracebackType
from typing import Any, Self

import msgspec

from jimsapi.runs.histogram import Histogram
from jimsapi.runs.tasks import pipeline_of, task_text

BEAT_EVERY = 0.25
"""Seconds between two beats of the loop."""
CHECK_EVERY = 0.2
"""Seconds between two checks by the thread."""
SUSPICIOUS_AFTER = 0.4
"""Seconds since the last beat after which the thread records which call runs."""
BLOCKED_AFTER = 0.7
"""Seconds since the last beat after which that call is logged, if it still runs. Together with `CHECK_EVERY` this is
less than one second."""
AGAIN_AFTER = 10.0
"""Seconds after which a block is logged again. Each further line takes three times as long."""
QUIET_FOR = 10.0
"""Seconds after a log line in which further short blocks are counted but not logged."""
LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ADVICE = "; await slow calls, or run the pipeline in a thread: a plain `def`, or JimsApp(threaded=True)"
MAX_FRAMES = 20
"""The number of calls of a stack in a log line: the innermost ones."""

_HOST = frozenset(("asyncio", "uvicorn", "uvloop", "anyio", "starlette", "jimsapi"))
"""Packages that call the code of apps and plugins. Log lines omit their calls at the beginning of a stack."""
_DEBUGGERS = frozenset(("pdb", "bdb", "pydevd", "_pydevd_bundle", "debugpy", "pudb"))

logger = logging.getLogger("jimsapi.watchdog")


class Block(msgspec.Struct):
    """A call that has been running since a check without a beat. `entry` is the frame that the loop called.

    `log_at` is the age, in seconds, at which the block is logged next.
    """

    entry: FrameType
    task: asyncio.Task[Any] | None
    log_at: float = BLOCKED_AFTER
    logged: str = ""
    counted: bool = False


class Watchdog:
    """Watches the running event loop. It is an async context manager.

    `lag` is a histogram of how late the loop's timers fire, and `blocks` the number of blocks. The watchdog does not
    report

    - time in which the process did not run: a suspended machine, SIGSTOP, or no free processor;
    - time in which the loop is not run, such as between two calls of `run_until_complete`;
    - a debugger that stops the loop's thread;
    - many short calls that together keep the loop busy. `lag` shows these.
    """

    def __init__(self) -> None:
        self.lag = Histogram(LAG_BUCKETS)
        self.blocks = 0
        self._beat_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()
        self._block: Block | None = None
        self._quiet_until = 0.0
        self._not_logged = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._native_thread = threading.get_native_id()
        self._clock = time.pthread_getcpuclockid(self._thread) if hasattr(time, "pthread_getcpuclockid") else None
        self._base = _base(sys._getframe())
        self._stopped = threading.Event()
        self._beat_at = time.monotonic()
        self._timer = self._loop.call_later(BEAT_EVERY, self._beat)
        threading.Thread(target=self._watch, args=(self._stopped,), name="event loop watchdog", daemon=True).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def current_lag(self) -> float:
        """Seconds that the loop is late now; 0 if it is on time, not running or not watched. Any thread may read it."""
        if self._timer is None or not self._loop.is_running():
            return 0.0
        return max(time.monotonic() - self._beat_at - BEAT_EVERY, 0.0)

    def _beat(self) -> None:
        now = time.monotonic()
        self.lag.observe(max(now - self._beat_at - BEAT_EVERY, 0.0))
        self._beat_at = now
        self._timer = self._loop.call_later(BEAT_EVERY, self._beat)

    def _watch(self, stopped: threading.Event) -> None:
        """Check the beat until stopped. Runs in the watchdog's thread."""
        beat_at, not_running, lock_held = self._beat_at, 0.0, 0.0
        checked_at, used_before, waited_before = time.monotonic(), self._processor_time(), self._processor_wait()
        while not stopped.wait(CHECK_EVERY):
            now, used = time.monotonic(), self._processor_time()
            # If this thread woke late and the loop's thread used the processor meanwhile, a call in C held the
            # interpreter lock. That is a block. If the loop's thread used no processor, the process did not run.
            late = now - checked_at - CHECK_EVERY
            paused = max(late - max(used - used_before - CHECK_EVERY, 0.0), 0.0)
            held_now = late - paused
            lock_held = max(lock_held, held_now)  # not the sum, since many short calls are not reported
            checked_at, used_before = now, used
            if self._beat_at != beat_at:
                self._end_block(self._beat_at - beat_at - not_running, lock_held)
                beat_at, not_running = self._beat_at, 0.0
                lock_held = min(held_now, now - beat_at)  # the beat may be older than the call
            not_running += paused
            if not self._loop.is_running():  # between two calls of `run_until_complete`
                not_running = now - beat_at
            try:
                self._check(now - beat_at - not_running, held_now)
            except Exception:
                logger.exception("the watchdog of the event loop failed; it continues")
            # This is read last: reading a file releases the interpreter lock, and the call that held it would continue.
            waited = self._processor_wait()
            not_running += max(waited - waited_before - paused, 0.0)
            waited_before = waited

    def _check(self, since_beat: float, lock_held: float) -> None:
        """Log the call that blocks the loop, if it is time to. The last beat was `since_beat` seconds ago.

        For `lock_held` seconds, this thread could not run, because a call held the interpreter lock. The lock is
        released at the next step of the code that held it, so the stack shows that code now.
        """
        if since_beat < SUSPICIOUS_AFTER:
            return
        stack = self._stack()
        if not stack or any(_package(frame) in _DEBUGGERS for frame in stack):
            self._block = None
            return
        block, task = self._block, asyncio.current_task(self._loop)
        if block is None or block.entry is not stack[0] or block.task is not task:
            block = self._block = Block(stack[0], task)
            if lock_held < BLOCKED_AFTER:
                return
        if since_beat < block.log_at:
            return
        if not block.counted:
            block.counted = True
            self.blocks += 1
        if not block.logged and since_beat < AGAIN_AFTER and time.monotonic() < self._quiet_until:
            self._not_logged += 1
            block.log_at = AGAIN_AFTER
            return
        self._log(block, task, since_beat, stack)
        block.log_at = max(AGAIN_AFTER, 3 * block.log_at)
        self._quiet_until = time.monotonic() + QUIET_FOR

    def _log(self, block: Block, task: asyncio.Task[Any] | None, since_beat: float, stack: list[FrameType]) -> None:
        block.logged = task_text(task)
        pipeline = None if task is None else pipeline_of(task)
        identifiers = {} if pipeline is None else {"run_id": str(pipeline.run_id), "thread_id": str(pipeline.thread_id)}
        logger.error(
            "the event loop is blocked and has served nobody for %.1f s: %s is at %s%s%s",
            since_beat,
            block.logged,
            _where(stack),
            "" if pipeline is None else ADVICE,
            self._unlogged_blocks(),
            extra=identifiers,
        )

    def _end_block(self, seconds: float, lock_held: float) -> None:
        block, self._block = self._block, None
        if block is not None and block.logged:
            logger.warning("the event loop works again; %s blocked it for %.1f s", block.logged, seconds)
            self._quiet_until = time.monotonic() + QUIET_FOR
        elif (block is None or not block.counted) and min(seconds, lock_held) >= BLOCKED_AFTER:
            self._count_unobserved_block(seconds)

    def _count_unobserved_block(self, seconds: float) -> None:
        """Count a block in which this thread could not run, and which ended before this thread could read the stack."""
        self.blocks += 1
        if time.monotonic() < self._quiet_until:
            self._not_logged += 1
            return
        logger.error(
            "the event loop was blocked and served nobody for %.1f s: a call kept the interpreter lock, and "
            "returned before the watchdog could read its stack%s",
            seconds,
            self._unlogged_blocks(),
        )
        self._quiet_until = time.monotonic() + QUIET_FOR

    def _unlogged_blocks(self) -> str:
        """Return the part of a log line about blocks that were counted but not logged since the last line."""
        others, self._not_logged = self._not_logged, 0
        return f" ({others} more blocks since the last such line)" if others else ""

    def _processor_wait(self) -> float:
        """Seconds in which the loop's thread could run but had no processor; 0 if the system does not report it."""
        try:
            with open(f"/proc/self/task/{self._native_thread}/schedstat") as file:
                return int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def _processor_time(self) -> float:
        """Processor seconds of the loop's thread, or of the process if the system does not report a thread's."""
        if self._clock is None:
            return time.process_time()
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # the thread has ended
            return 0.0

    def _stack(self) -> list[FrameType]:
        """The stack of the call that the loop runs now, outermost frame first. Empty if the loop waits.

        It is also empty if other code runs the loop than when the watchdog was entered.
        """
        frames: list[FrameType] = []
        frame = sys._current_frames().get(self._thread)
        while frame is not None and frame is not self._base:
            frames.append(frame)
            frame = frame.f_back
        if frame is not self._base:
            return []
        frames.reverse()
        while frames and _package(frames[0]) in ("asyncio", "selectors"):
            del frames[0]
        return frames


def _base(frame: FrameType) -> FrameType | None:
    """The frame that runs the loop: the first one outside of asyncio, from a frame that the loop called."""
    inner: FrameType | None = frame
    while inner is not None and _package(inner) != "asyncio" and inner.f_back is not None:
        inner = inner.f_back
    while inner is not None and _package(inner) == "asyncio":
        inner = inner.f_back
    return inner


def _package(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""


def _where(stack: list[FrameType]) -> str:
    """The calls of a stack as one line, without the server's calls before the first call of an app or plugin."""
    first = next((index for index, frame in enumerate(stack) if _package(frame) not in _HOST), 0)
    shown = stack[first:][-MAX_FRAMES:]
    calls = " > ".join(f"{frame.f_code.co_filename}:{frame.f_lineno} in {_name(frame.f_code)}" for frame in shown)
    line = linecache.getline(shown[-1].f_code.co_filename, shown[-1].f_lineno, shown[-1].f_globals).strip()
    return f"{calls}: {line}" if line else calls


def _name(code: CodeType) -> str:
    return code.co_qualname
