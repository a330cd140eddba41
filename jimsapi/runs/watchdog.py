"""Sees that something blocks the event loop, and logs at once what it is.

While the loop is blocked no probe, timer or client is served, so a thread has to look. The loop beats: a timer notes
the time. When no beat comes, the thread reads the stack of the loop's thread, and logs the pipeline and its line.
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
LOOK_EVERY = 0.2
"""Seconds between two looks of the thread."""
SUSPICIOUS_AFTER = 0.4
"""Seconds since the last beat after which the thread notes what runs."""
BLOCKED_AFTER = 0.7
"""Seconds since the last beat after which that is logged, if it still runs. With `LOOK_EVERY` it is less than one."""
AGAIN_AFTER = 10.0
"""Seconds of a block after which it is logged again; then three times as many, and so on."""
QUIET_FOR = 10.0
"""Seconds after a line during which the next short blocks are counted and not logged."""
LAG_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ADVICE = "; await what takes long, or have the pipeline work in a thread: a plain `def`, or JimsApp(threaded=True)"
MAX_FRAMES = 20
"""Calls of a stack that a line names: the innermost ones."""

_HOST = frozenset(("asyncio", "uvicorn", "uvloop", "anyio", "starlette", "jimsapi"))
"""Packages that call other people's code: their calls at the beginning of a stack say nothing about who blocks."""
_DEBUGGERS = frozenset(("pdb", "bdb", "pydevd", "_pydevd_bundle", "debugpy", "pudb"))

logger = logging.getLogger("jimsapi.watchdog")


class Block(msgspec.Struct):
    """What has been running since it was first seen without a beat. `entry` is the call that the loop made."""

    entry: FrameType
    task: asyncio.Task[Any] | None
    log_at: float = BLOCKED_AFTER
    logged: str = ""
    counted: bool = False


class Watchdog:
    """Watches the running event loop while it is entered. `lag` counts how late the loop's timers fire.

    It takes nothing for a block during which the process did not run: a suspended machine, SIGSTOP, a starved
    processor. Nor does it count the time during which the loop is not run, as between two `run_until_complete`. Nor
    does it log while a debugger holds the loop's thread, nor many short calls that keep the loop busy together: the
    metrics show those.
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
        """Seconds that the loop is late now, for any thread to read; 0 if it is on time, not run or not watched."""
        if self._timer is None or not self._loop.is_running():
            return 0.0
        return max(time.monotonic() - self._beat_at - BEAT_EVERY, 0.0)

    def _beat(self) -> None:
        now = time.monotonic()
        self.lag.observe(max(now - self._beat_at - BEAT_EVERY, 0.0))
        self._beat_at = now
        self._timer = self._loop.call_later(BEAT_EVERY, self._beat)

    def _watch(self, stopped: threading.Event) -> None:
        """Look at the beat until stopped: the work of the thread."""
        beat_at, absent, held = self._beat_at, 0.0, 0.0
        looked_at, used, waited = time.monotonic(), self._processor_time(), self._waited()
        while not stopped.wait(LOOK_EVERY):
            now, using = time.monotonic(), self._processor_time()
            # The thread woke late and the loop's worked meanwhile: a call in C holds the interpreter, and that is a
            # block. It woke late and the loop's did nothing: it was stopped, and the loop is not to blame.
            late = now - looked_at - LOOK_EVERY
            away = max(late - max(using - used - LOOK_EVERY, 0.0), 0.0)
            held_now = late - away
            held = max(held, held_now)  # a call lies within one look, and many short ones are not reported
            looked_at, used = now, using
            if self._beat_at != beat_at:
                self._end_block(self._beat_at - beat_at - absent, held)
                beat_at, absent = self._beat_at, 0.0
                held = min(held_now, now - beat_at)  # the beat may be older than the call
            absent += away
            if not self._loop.is_running():  # it returned from `run_until_complete`, and may be run again
                absent = now - beat_at
            try:
                self._look(now - beat_at - absent, held_now)
            except Exception:
                logger.exception("the watchdog of the event loop failed; it goes on")
            # To read a file gives the interpreter away, and the call that held it would go on. So this comes last.
            waiting = self._waited()
            absent += max(waiting - waited - away, 0.0)
            waited = waiting

    def _look(self, silent: float, held: float) -> None:
        """Log what blocks the loop, which has not beaten for `silent` seconds, if it is time to.

        The interpreter was held for `held` seconds, so that this thread could not run. It is released at the next step
        of the code that held it, which is therefore what runs now.
        """
        if silent < SUSPICIOUS_AFTER:
            return
        stack = self._stack()
        if not stack or any(_package(frame) in _DEBUGGERS for frame in stack):
            self._block = None
            return
        block, task = self._block, asyncio.current_task(self._loop)
        if block is None or block.entry is not stack[0] or block.task is not task:
            block = self._block = Block(stack[0], task)
            if held < BLOCKED_AFTER:
                return
        if silent < block.log_at:
            return
        if not block.counted:
            block.counted = True
            self.blocks += 1
        if not block.logged and silent < AGAIN_AFTER and time.monotonic() < self._quiet_until:
            self._not_logged += 1
            block.log_at = AGAIN_AFTER
            return
        self._log(block, task, silent, stack)
        block.log_at = max(AGAIN_AFTER, 3 * block.log_at)
        self._quiet_until = time.monotonic() + QUIET_FOR

    def _log(self, block: Block, task: asyncio.Task[Any] | None, silent: float, stack: list[FrameType]) -> None:
        block.logged = task_text(task)
        pipeline = None if task is None else pipeline_of(task)
        found_by = {} if pipeline is None else {"run_id": str(pipeline.run_id), "thread_id": str(pipeline.thread_id)}
        logger.error(
            "the event loop is blocked and has served nobody for %.1f s: %s is at %s%s%s",
            silent,
            block.logged,
            _where(stack),
            "" if pipeline is None else ADVICE,
            self._others(),
            extra=found_by,
        )

    def _end_block(self, seconds: float, held: float) -> None:
        block, self._block = self._block, None
        if block is not None and block.logged:
            logger.warning("the event loop works again; %s blocked it for %.1f s", block.logged, seconds)
            self._quiet_until = time.monotonic() + QUIET_FOR
        elif (block is None or not block.counted) and min(seconds, held) >= BLOCKED_AFTER:
            self._count_unseen(seconds)

    def _count_unseen(self, seconds: float) -> None:
        """Count a block during which this thread could not run, and that ended before it could look."""
        self.blocks += 1
        if time.monotonic() < self._quiet_until:
            self._not_logged += 1
            return
        logger.error(
            "the event loop was blocked and served nobody for %.1f s: a call kept the interpreter to itself, and "
            "returned before the watchdog could see it%s",
            seconds,
            self._others(),
        )
        self._quiet_until = time.monotonic() + QUIET_FOR

    def _others(self) -> str:
        """What a line says of the blocks that were counted and not logged since the last one."""
        others, self._not_logged = self._not_logged, 0
        return f" ({others} more blocks since the last such line)" if others else ""

    def _waited(self) -> float:
        """Seconds for which the loop's thread had work and no processor; 0 where the system does not say."""
        try:
            with open(f"/proc/self/task/{self._native_thread}/schedstat") as file:
                return int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def _processor_time(self) -> float:
        """Seconds that the loop's thread has used of processors; where the system cannot tell, all threads."""
        if self._clock is None:
            return time.process_time()
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # the thread has ended
            return 0.0

    def _stack(self) -> list[FrameType]:
        """The calls that run in the loop now, the one that the loop made first. Empty if it only waits.

        Empty, too, if what runs is not called by the code that ran the loop when the watchdog was entered.
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
    """The call that runs the loop, seen from one that the loop made: the first that is not asyncio's own."""
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
    """The calls of a stack in a line, without those of the server before other people's code begins."""
    first = next((index for index, frame in enumerate(stack) if _package(frame) not in _HOST), 0)
    shown = stack[first:][-MAX_FRAMES:]
    calls = " > ".join(f"{frame.f_code.co_filename}:{frame.f_lineno} in {_name(frame.f_code)}" for frame in shown)
    line = linecache.getline(shown[-1].f_code.co_filename, shown[-1].f_lineno, shown[-1].f_globals).strip()
    return f"{calls}: {line}" if line else calls


def _name(code: CodeType) -> str:
    return code.co_qualname
