"""The use of models: each request that jims-core counts becomes an event `model.usage` of the run that made it.

jims-core counts every request, of completions, embeddings and rerankers, in `LLMProvider.usage`. That is a mapping from
the names of models to `ModelUsage`, whose method `observe` jims-core calls once for each request. Here `usage` becomes
a property of the class, which returns such a mapping with counters that also record each request. So an app reads the
mapping as before, and the requests of providers that the app has made itself are recorded too.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from jims_core.llms.llm_provider import LLMProvider

from jimsapi import ThreadContext
from jimsapi.threads import RunClosed

try:
    from jims_core.llms.llm_provider import ModelUsage
except ImportError:  # a later jims-core; `install` then changes nothing
    ModelUsage = object  # type: ignore[assignment, misc]

logger = logging.getLogger("jimsapi.jims")

ATTRIBUTE = "usage"
"""The attribute of `LLMProvider` that has the mapping."""
_FIELDS = ("prompt_tokens", "completion_tokens", "cached_tokens", "requests_cost")


class RunUsage:
    """Records the requests of one run. Create it in the event loop of the run.

    A pipeline may copy its context, and with it this object. A copy records in the same run. After pickling, for
    another process, it records nothing.
    """

    def __init__(self, ctx: ThreadContext) -> None:
        self._ctx = ctx
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __deepcopy__(self, memo: object) -> "RunUsage":
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def record(self, model: str, request: ModelUsage) -> None:
        """Record a request. It may come from any thread, since jims-core has methods that block."""
        if threading.get_ident() == self._thread:
            self._send(model, request)
            return
        with suppress(RuntimeError):  # the loop is closed, and so is the run
            self._loop.call_soon_threadsafe(self._send, model, request)

    def _send(self, model: str, request: ModelUsage) -> None:
        try:
            self._ctx.usage(
                model=model,
                input_tokens=request.prompt_tokens,
                output_tokens=request.completion_tokens,
                cached_tokens=request.cached_tokens,
                cost=request.requests_cost or None,  # jims-core has 0 for an unknown price
            )
        except RunClosed:
            logger.debug("a request to %s ended after its run; the run does not have its usage", model)
        except (TypeError, ValueError) as error:
            logger.warning("the usage of %s cannot be recorded: %s", model, error)


_current: ContextVar[RunUsage | None] = ContextVar("jimsapi_jims_run", default=None)


@contextmanager
def recording(ctx: ThreadContext) -> Iterator[RunUsage]:
    """Record in this run the requests of the current task, and of the tasks and threads that it starts."""
    run = RunUsage(ctx)
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


class RecordedModel(ModelUsage):
    """What jims-core counts of a model. `run` is that of the provider; None: the run of the caller, if there is one."""

    model = "-"
    run: RunUsage | None = None

    def observe(self, *arguments: Any, **named: Any) -> None:
        """Count a request as jims-core does, then record it."""
        super().observe(*arguments, **named)
        run = self.run or _current.get()
        if run is not None:
            request = ModelUsage()
            request.observe(*arguments, **named)
            run.record(self.model, request)


class RecordedUsage(dict[str, ModelUsage]):
    """The mapping of one provider. It creates the counter of a model when jims-core first needs it."""

    run: RunUsage | None = None

    @classmethod
    def of(cls, counted: Mapping[str, ModelUsage]) -> "RecordedUsage":
        """Return a mapping that goes on from what was counted."""
        usage = cls()
        for model, before in counted.items():
            vars(usage[model]).update(vars(before))
        return usage

    def __missing__(self, model: str) -> ModelUsage:
        counter = RecordedModel()
        counter.model, counter.run = model, self.run
        self[model] = counter
        return counter


def install() -> None:
    """Make `usage` a property of jims-core's `LLMProvider`. Another call changes nothing.

    If jims-core counts in another way than this module knows, it logs a warning and changes nothing, so that apps work
    as before.
    """
    if vars(LLMProvider).get(ATTRIBUTE) is _USAGE:
        return
    if not _counts_as_known():
        logger.warning(
            "this version of jims-core counts the use of models in a way that jimsapi-jims does not know: RUNS WILL "
            "HAVE NO model.usage; look for a newer jimsapi-jims"
        )
        return
    setattr(LLMProvider, ATTRIBUTE, _USAGE)


def of_run(provider: LLMProvider, run: RunUsage) -> LLMProvider:
    """Return the provider, whose requests are recorded in this run, whatever thread makes them."""
    usage = getattr(provider, ATTRIBUTE, None)
    if isinstance(usage, RecordedUsage):
        usage.run = run
    return provider


def _counts_as_known() -> bool:
    try:
        usage = vars(LLMProvider())[ATTRIBUTE]
        counter = ModelUsage()
        counter.observe(prompt_tokens=1, completion_tokens=1, cached_tokens=1, request_cost=1)
        return isinstance(usage, dict) and [getattr(counter, name) for name in _FIELDS] == [1, 1, 1, 1]
    except Exception:
        logger.debug("jims-core counts in another way", exc_info=True)
        return False


def _get_usage(provider: LLMProvider) -> RecordedUsage:
    try:
        usage = vars(provider)[ATTRIBUTE]
    except KeyError:
        raise AttributeError(ATTRIBUTE) from None
    if not isinstance(usage, RecordedUsage):  # the app has replaced it, or made the provider before `install`
        usage = vars(provider)[ATTRIBUTE] = RecordedUsage.of(usage)
    return usage


def _set_usage(provider: LLMProvider, usage: Mapping[str, ModelUsage]) -> None:
    vars(provider)[ATTRIBUTE] = usage


_USAGE = property(_get_usage, _set_usage)
