"""What the contracts share: how a plugin is found and built, what does not apply to it, what may not be left over."""

import asyncio
import gc
import inspect
import logging
import os
import re
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, TypeVar

import pytest

from jimsapi.api.app import Api, create_api
from jimsapi.builtin import builtin_plugins
from jimsapi.plugins.compose import resolve_settings
from jimsapi.plugins.manager import PluginEntry, PluginManager
from jimsapi.plugins.options import Settings
from jimsapi.threads.context import ThreadContext

Function = TypeVar("Function", bound=Callable[..., Any])

ANSWERS_WITHIN = 10.0
"""Seconds that one call of a plugin may take before the contract gives it up as hanging."""

SETTLES_WITHIN = 5.0
"""Seconds in which tasks that a plugin left behind must have ended by themselves."""

MOST_STEPS = 40
"""Steps of the loop after which a call is cancelled at the latest."""


class DoesNotApply:
    """Stands for examples that a plugin cannot have, and says why:

        expired = DoesNotApply("a ticket has no date")

    The cases that need them are not run; the reason stands in your test module for whoever reads it.
    """

    def __init__(self, reason: str) -> None:
        if not reason.strip():
            raise ValueError("say why it does not apply")
        self.reason = reason


def needs(*examples: str) -> Callable[[Function], Function]:
    """Marks a case that cannot run for a plugin to which one of these examples does not apply."""

    def mark(case: Function) -> Function:
        case.needs = examples  # type: ignore[attr-defined] # a mark on the function, as pytest's are
        return case

    return mark


@pytest.mark.anyio
class PluginContract:
    """Base of the contracts of what hooks build: `hook` is the hook's name."""

    hook: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Leave out the cases whose examples do not apply: pytest collects functions, and None is none."""
        super().__init_subclass__(**kwargs)
        conditional = {
            name: case for base in reversed(cls.__mro__) for name, case in vars(base).items() if hasattr(case, "needs")
        }
        for name, case in conditional.items():
            inherited = inspect.getattr_static(cls, name)
            if inherited is not None and not hasattr(inherited, "needs"):
                continue  # the subclass put its own in the place
            examples = [inspect.getattr_static(cls, example) for example in case.needs]
            wanted = None if any(isinstance(one, DoesNotApply) for one in examples) else case
            if wanted is not inherited:
                setattr(cls, name, wanted)

    # What a subclass declares

    @property
    def distribution(self) -> str:
        """The name under which the plugin is installed, as `jimsapi plugins` shows it."""
        raise self.undeclared("distribution", "the name under which pip installed the plugin")

    plugin: str | None = None
    """The plugin's entry point, if its distribution has several plugins that build the same kind of thing."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The plugin's options, as `create_api` takes them, such that it is configured."""
        raise self.undeclared("settings", 'options by name, as for create_api: {"ticket_secret": "sesame"}')

    @property
    def unconfigured(self) -> Mapping[str, Any] | DoesNotApply:
        """Options under which the plugin builds nothing: none at all, unless you say otherwise."""
        return {}

    def undeclared(self, name: str, wanted: str) -> AssertionError:
        """The error of a case that needs what the subclass does not declare."""
        return AssertionError(f"{type(self).__name__} does not declare `{name}`: give {wanted}")

    def examples(self, name: str) -> Any:
        """The examples of a name. Fails if there are none: an empty list would pass every case."""
        examples = getattr(self, name)
        assert examples, f"{type(self).__name__}.{name} is empty: give an example, or DoesNotApply('why there is none')"
        return examples

    # What the cases work with

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(autouse=True)
    def clean_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No `JIMS_*` of the person who runs the tests."""
        remove_variables(monkeypatch)

    @pytest.fixture
    def shown(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator["Shown"]:
        """All that is logged, from debug level up, or printed during the case."""
        with caplog.at_level(logging.DEBUG):
            yield Shown(caplog, capfd)

    def build(self, given: Mapping[str, Any]) -> list[Any]:
        """What the installed plugin's hook builds under these options, not entered yet; nothing, or one thing."""
        plugins = PluginManager(builtin_plugins())
        settings = resolved(plugins, given)
        asked = [one for one in plugins.implementations(self.hook) if self.is_mine(one.entry)]
        assert asked, f"no plugin of {self.distribution} implements {self.hook}"
        return [built for built in (one(settings=settings) for one in asked) if built is not None]

    @asynccontextmanager
    async def opened(self, given: Mapping[str, Any] | None = None) -> AsyncIterator[Any]:
        """What the plugin builds, entered if it is an async context manager."""
        built = self.build(self.settings if given is None else given)
        assert len(built) == 1, f"configured, {self.distribution} builds {len(built)} things for {self.hook}"
        if not isinstance(built[0], AbstractAsyncContextManager):
            yield built[0]
            return
        async with built[0] as entered:
            yield built[0] if entered is None else entered

    def is_mine(self, entry: PluginEntry) -> bool:
        """Whether this is the plugin that is tested."""
        same = canonical(entry.distribution) == canonical(self.distribution)
        return same and self.plugin in (None, entry.name)

    def api(self, given: Mapping[str, Any] | None = None) -> Api:
        """A server with the plugin in it, whose app repeats what it was told."""
        return create_api(repeat, **{"store": "memory:", **(self.settings if given is None else given)})

    # What holds for all of them

    def test_its_installed_distribution_is_found(self) -> None:
        entries = [entry for entry, _ in PluginManager(builtin_plugins()).plugins]
        found = any(self.is_mine(entry) for entry in entries)
        assert found, f"{self.distribution} is not installed here, or has no such entry point in the group jimsapi"
        assert self.build(self.settings), f"configured, {self.distribution} builds nothing for {self.hook}"

    @needs("unconfigured")
    def test_without_configuration_it_builds_nothing(self) -> None:
        unconfigured = self.unconfigured
        assert not isinstance(unconfigured, DoesNotApply)
        assert self.build(unconfigured) == []

    async def test_it_has_a_name_that_operators_can_write(self) -> None:
        async with self.opened() as built:
            name = getattr(built, "name", None)
            assert isinstance(name, str), "it has no name"
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name), f"{name!r} is no word for an option or a label"

    async def test_it_can_be_left_and_built_anew(self) -> None:
        for _ in range(2):
            async with nothing_left(), self.opened() as built:
                await self.use(built)

    async def test_a_server_with_it_starts_stops_and_starts_again(self) -> None:
        api = self.api()
        for _ in range(2):
            async with nothing_left(), api.lifespan():
                assert api.composition is not None

    async def use(self, built: Any) -> None:
        """Use what was built as the host does, and check that it works."""
        raise NotImplementedError


class Shown:
    """What a test logged and printed, as text to search."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
        self._caplog = caplog
        self._capfd = capfd
        self._kept: list[str] = []

    def keep(self, *things: object) -> None:
        """Add what an error page, a debugger or a log line would show of these."""
        for thing in things:
            self._kept += [repr(thing), str(thing)]
            if isinstance(thing, BaseException):
                self._kept += traceback.format_exception(thing)

    def text(self) -> str:
        """All of it. What structured logs take from a record beside its message is in it."""
        printed = self._capfd.readouterr()
        records = [repr(vars(record)) for record in self._caplog.records]
        return "\n".join([self._caplog.text, *records, printed.out, printed.err, *self._kept])

    def must_not_hold(self, secrets: Iterable[str]) -> None:
        """Fail if one of `secrets` was shown; the failure does not show it either."""
        text = self.text()
        leaked = [number for number, secret in enumerate(secrets, 1) if secret in text]
        assert not leaked, f"secrets number {leaked} of those that must stay hidden were logged, raised or printed"


async def repeat(ctx: ThreadContext) -> None:
    """The pipeline behind the tests."""
    ctx.send_message(f"You said: {ctx.get_last_user_message()}")


def remove_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every `JIMS_*` variable out of the environment for the length of a test."""
    for variable in list(os.environ):
        if variable.startswith("JIMS_"):
            monkeypatch.delenv(variable)


def resolved(plugins: PluginManager, given: Mapping[str, Any]) -> Settings:
    """The settings of these plugins, from `given` and the defaults alone."""
    return resolve_settings(plugins, [], given, {})


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it (PyPA, name normalisation)."""
    return re.sub(r"[-_.]+", "-", name).lower()


async def within(call: Awaitable[Any]) -> Any:
    """Await a plugin's answer. Raises `TimeoutError` for one that hangs."""
    async with asyncio.timeout(ANSWERS_WITHIN):
        return await call


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail if a task runs on afterwards, or a socket or a file was left open for the garbage collector."""
    gc.collect()  # what others left behind
    before = asyncio.all_tasks()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield
        await tasks_settled(before)
        gc.collect()
    unclosed = [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)]
    assert not unclosed, f"left open: {unclosed}"


async def tasks_settled(before: set[asyncio.Task[Any]]) -> None:
    """Wait until no task runs beside those of `before`. Fails if one runs on."""
    until = asyncio.get_running_loop().time() + SETTLES_WITHIN
    while left := [task for task in asyncio.all_tasks() - before if not task.done()]:
        assert asyncio.get_running_loop().time() < until, f"tasks were left running: {left}"
        await asyncio.sleep(0.001)


async def cancel_in_mid_call(call: Callable[[], Awaitable[Any]], times: int = 250) -> None:
    """Cancel calls, each one step of the loop later than the one before it, and from the first step again when a call
    has ended by then. So many, that a pool is empty if each call loses a place in it.

    Fails for a call that swallows its cancellation, and for tasks that run on.
    """
    before = asyncio.all_tasks()
    steps = 1
    for _ in range(times):
        task = asyncio.ensure_future(call())
        for _ in range(steps):
            await asyncio.sleep(0)
        in_mid_call = task.cancel()
        try:
            await within(asyncio.wait({task}))
        except TimeoutError:
            raise AssertionError("a call that was cancelled goes on") from None
        assert task.cancelled() or not in_mid_call, f"a call that was cancelled went on and gave {_outcome(task)}"
        steps = steps % MOST_STEPS + 1 if in_mid_call else 1
    await tasks_settled(before)


def _outcome(task: asyncio.Future[Any]) -> str:
    error = task.exception()
    return "an answer" if error is None else type(error).__name__


def listed(values: Sequence[Any] | DoesNotApply) -> list[Any]:
    """Examples as a list, without any if they do not apply."""
    return [] if isinstance(values, DoesNotApply) else list(values)
