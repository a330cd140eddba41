"""The base of the contracts: it finds and builds a plugin, omits cases that do not apply, and checks for leaks."""

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
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import pytest

from jimsapi.api.app import Api, create_api
from jimsapi.builtin import builtin_plugins
from jimsapi.plugins.compose import resolve_settings
from jimsapi.plugins.discovery import PluginEntry
from jimsapi.plugins.manager import Implementation, PluginManager
from jimsapi.plugins.options import Settings
from jimsapi.plugins.versions import canonical
from jimsapi.threads.context import ThreadContext

Function = TypeVar("Function", bound=Callable[..., Any])

ANSWERS_WITHIN = 10.0
"""Seconds that one call of a plugin may take. After that, the call counts as hanging."""

SETTLES_WITHIN = 5.0
"""Seconds in which tasks that a plugin leaves running must end."""

MOST_STEPS = 40
"""Most steps of the event loop before a call is cancelled."""


class DoesNotApply:
    """Declares that a plugin cannot have examples of a kind, with the reason:

        expired = DoesNotApply("a ticket has no date")

    The cases that need such examples do not run. The reason is for the readers of your test module.
    """

    def __init__(self, reason: str) -> None:
        if not reason.strip():
            raise ValueError("say why it does not apply")
        self.reason = reason


def needs(*examples: str) -> Callable[[Function], Function]:
    """Mark a case that needs these examples. It does not run if one of them is `DoesNotApply`."""

    def mark(case: Function) -> Function:
        case.needs = examples  # type: ignore[attr-defined] # a mark on the function, as pytest's are
        return case

    return mark


_OMITTED = object()
"""Stands in place of a case that does not apply. pytest does not collect it."""


@pytest.mark.anyio
class Contract:
    """The base of all contracts. It omits cases that do not apply, and rejects fixtures that hide a helper.

    A subclass that sets a case to None omits it too, as in any test class.
    """

    conditional: ClassVar[Mapping[str, Any]] = {}
    """The cases that `needs` marks, also those that do not apply to this class."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Omit the cases whose examples do not apply to this class.

        Raises `TypeError` if a fixture has the name of another attribute of the contract.
        """
        super().__init_subclass__(**kwargs)
        _reject_hiding_fixtures(cls)
        conditional: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            conditional |= vars(base).get("conditional", {})
            conditional |= {name: case for name, case in vars(base).items() if hasattr(case, "needs")}
        cls.conditional = conditional
        for name, case in conditional.items():
            inherited = inspect.getattr_static(cls, name)
            if inherited is not _OMITTED and not hasattr(inherited, "needs"):
                continue  # the subclass has replaced the case, or has set it to None
            examples = [inspect.getattr_static(cls, example) for example in case.needs]
            applicable = _OMITTED if any(isinstance(one, DoesNotApply) or one is False for one in examples) else case
            if applicable is not inherited:
                setattr(cls, name, applicable)

    def undeclared(self, name: str, wanted: str) -> AssertionError:
        """Return the error for a case that needs a missing declaration. `wanted` describes what to declare."""
        return AssertionError(f"{type(self).__name__} does not declare `{name}`: give {wanted}")

    def examples(self, name: str) -> Any:
        """Return the examples of a name. Fails if there are none, since an empty list would pass every case."""
        examples = getattr(self, name)
        assert examples, f"{type(self).__name__}.{name} is empty: give an example, or DoesNotApply('why there is none')"
        return examples

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"


def _reject_hiding_fixtures(cls: type) -> None:
    for base in cls.__mro__:
        if base.__module__.startswith("jimsapi.testing"):
            for name, value in vars(base).items():
                if _is_fixture(inspect.getattr_static(cls, name)) and not _is_fixture(value):
                    raise TypeError(
                        f"the fixture {cls.__name__}.{name} has the name of an attribute of {base.__name__}, which the "
                        "cases of the contract use: give the fixture another name"
                    )


def _is_fixture(value: object) -> bool:
    # The first attribute is of pytest before 8.4, the second one of later versions.
    return any(hasattr(value, mark) for mark in ("_pytestfixturefunction", "_fixture_function_marker"))


class PluginContract(Contract):
    """The base of contracts for plugins. `hook` is the name of the hook that the cases are about."""

    hook: ClassVar[str]

    # Declarations of a subclass

    @cached_property
    def distribution(self) -> str:
        """The name under which the plugin is installed, as `jimsapi plugins` shows it."""
        raise self.undeclared("distribution", "the name under which pip installed the plugin")

    plugin: str | None = None
    """The plugin's entry point, if its distribution has several plugins that implement the hook."""

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Options, as for `create_api`, with which the plugin is configured."""
        raise self.undeclared("settings", 'options by name, as for create_api: {"ticket_secret": "sesame"}')

    # Helpers of the cases

    @pytest.fixture(autouse=True)
    def clean_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Remove the `JIMS_*` variables of the environment."""
        remove_variables(monkeypatch)

    @pytest.fixture
    def shown(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator["CapturedOutput"]:
        """Everything that is logged, from debug level up, or printed during the case."""
        with caplog.at_level(logging.DEBUG):
            yield CapturedOutput(caplog, capfd)

    def implementations(self, plugins: PluginManager) -> list[Implementation]:
        """Return the functions of the installed plugin for the hook. Fails if there is none."""
        found = [one for one in plugins.implementations(self.hook) if self.is_mine(one.entry)]
        assert found, f"no plugin of {self.distribution} implements {self.hook}"
        return found

    def is_mine(self, entry: PluginEntry) -> bool:
        """Whether this is the plugin under test."""
        same = canonical(entry.distribution) == canonical(self.distribution)
        return same and self.plugin in (None, entry.name)

    def api(self, given: Mapping[str, Any] | None = None, app: Any = None) -> Api:
        """Return a server with the plugin. Its app is `app`, or a pipeline that repeats the message."""
        options = self.settings if given is None else given
        return create_api(repeat if app is None else app, **{"store": "memory:", **options})

    # Cases for all plugins

    def test_its_installed_distribution_is_found(self) -> None:
        plugins = PluginManager(builtin_plugins())
        found = any(self.is_mine(entry) for entry, _ in plugins.plugins)
        assert found, f"{self.distribution} is not installed here, or has no such entry point in the group jimsapi"
        assert self.implementations(plugins)

    async def test_a_server_with_it_starts_stops_and_starts_again(self) -> None:
        api = self.api()
        for _ in range(2):
            async with nothing_left(), api.lifespan():
                assert api.composition is not None


class BuiltContract(PluginContract):
    """The base of contracts for objects that a hook builds."""

    @cached_property
    def unconfigured(self) -> Mapping[str, Any] | DoesNotApply:
        """Options with which the plugin builds nothing. The default is no options."""
        return {}

    @cached_property
    def secrets(self) -> Sequence[str]:
        """The secret parts of `settings`, which must not be shown. The default is none."""
        return ()

    def build(self, given: Mapping[str, Any]) -> list[Any]:
        """Return the objects that the installed plugin's hook builds with these options, before they are entered."""
        plugins = PluginManager(builtin_plugins())
        settings = resolved(plugins, given)
        hooks = self.implementations(plugins)
        return [built for built in (hook(settings=settings) for hook in hooks) if built is not None]

    @asynccontextmanager
    async def opened(self, given: Mapping[str, Any] | None = None) -> AsyncIterator[Any]:
        """Return the object that the plugin builds, entered if it is an async context manager."""
        built = self.build(self.settings if given is None else given)
        assert len(built) == 1, f"configured, {self.distribution} builds {len(built)} objects for {self.hook}"
        if not isinstance(built[0], AbstractAsyncContextManager):
            yield built[0]
            return
        async with built[0] as entered:
            yield built[0] if entered is None else entered

    def test_its_installed_distribution_is_found(self) -> None:
        super().test_its_installed_distribution_is_found()
        assert self.build(self.settings), f"configured, {self.distribution} builds nothing for {self.hook}"

    @needs("unconfigured")
    def test_without_configuration_it_builds_nothing(self) -> None:
        unconfigured = self.unconfigured
        assert not isinstance(unconfigured, DoesNotApply)
        assert self.build(unconfigured) == []

    async def test_it_can_be_closed_and_built_again(self) -> None:
        for _ in range(2):
            async with nothing_left(), self.opened() as built:
                await self.use(built)

    async def use(self, built: Any) -> None:
        """Use the built object as the host does, and check that it works."""
        raise NotImplementedError


class NamedContract(BuiltContract):
    """The base of contracts for objects that operators name in options and see in metrics."""

    async def test_it_has_a_name_that_operators_can_write(self) -> None:
        async with self.opened() as built:
            name = getattr(built, "name", None)
            assert isinstance(name, str), "it has no name"
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name), f"{name!r} cannot be used in an option or a label"


class CapturedOutput:
    """The log and the output of a test, as text to search."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
        self._caplog = caplog
        self._capfd = capfd
        self._kept: list[str] = []

    def add(self, *things: object) -> None:
        """Add the texts that an error page, a debugger or a log line would show of these objects."""
        for thing in things:
            self._kept += [repr(thing), str(thing)]
            if isinstance(thing, BaseException):
                self._kept += traceback.format_exception(thing)

    def text(self) -> str:
        """Return the whole text. It includes the attributes of log records, which structured logs show."""
        printed = self._capfd.readouterr()
        records = [repr(vars(record)) for record in self._caplog.records]
        return "\n".join([self._caplog.text, *records, printed.out, printed.err, *self._kept])

    def assert_contains_none_of(self, secrets: Iterable[str]) -> None:
        """Fail if the text contains one of `secrets`. The failure message does not contain it."""
        text = self.text()
        leaked = [number for number, secret in enumerate(secrets, 1) if secret in text]
        assert not leaked, f"secrets number {leaked} of those that must stay hidden were logged, raised or printed"


async def repeat(ctx: ThreadContext) -> None:
    """The pipeline of the server under test."""
    ctx.send_message(f"You said: {ctx.get_last_user_message()}")


def remove_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove every `JIMS_*` variable from the environment during a test."""
    for variable in list(os.environ):
        if variable.startswith("JIMS_"):
            monkeypatch.delenv(variable)


def resolved(plugins: PluginManager, given: Mapping[str, Any]) -> Settings:
    """Return the settings of these plugins, from `given` and the defaults only."""
    return resolve_settings(plugins, [], given, {})


async def within(call: Awaitable[Any]) -> Any:
    """Await a plugin's call. Raises `TimeoutError` if it takes longer than `ANSWERS_WITHIN` seconds."""
    async with asyncio.timeout(ANSWERS_WITHIN):
        return await call


async def outcome(call: Awaitable[Any]) -> Any:
    """Await a call. Returns its result or the exception that it raised."""
    try:
        return await within(call)
    except Exception as error:
        return error


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fail if a task still runs afterwards, or if the garbage collector finds an open socket or file."""
    gc.collect()  # objects of earlier tests
    gc.freeze()  # later collections then traverse only what the case makes
    before = asyncio.all_tasks()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield
        await tasks_settled(before)
        gc.collect()
    unclosed = [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)]
    assert not unclosed, f"left open: {unclosed}"


async def tasks_settled(before: set[asyncio.Task[Any]]) -> None:
    """Wait until only the tasks of `before` run. Fails after `SETTLES_WITHIN` seconds."""
    until = asyncio.get_running_loop().time() + SETTLES_WITHIN
    while running := [task for task in asyncio.all_tasks() - before if not task.done()]:
        if asyncio.get_running_loop().time() >= until:
            raise AssertionError(f"tasks were left running: {'; '.join(map(task_text, running))}")
        await asyncio.sleep(0.001)


def task_text(task: asyncio.Task[Any]) -> str:
    """Describe a task for a failure message: its name, its coroutine, and the line where that waits."""
    coroutine = task.get_coro()
    place = "".join(f", at {frame.f_code.co_filename}:{frame.f_lineno}" for frame in task.get_stack(limit=1))
    return f"{task.get_name()} ({getattr(coroutine, '__qualname__', coroutine)}{place})"


async def cancel_in_mid_call(
    call: Callable[[], Awaitable[Any]], times: int = 250, *, may_leave_tasks: bool = False
) -> None:
    """Cancel `times` calls, each one step of the event loop later than the call before.

    When a call ends before its cancellation, the next one is cancelled at the first step again. The number of calls is
    large enough to empty a pool in which each cancelled call loses a place. Fails if a call suppresses its
    cancellation, and if tasks keep running, unless `may_leave_tasks` is set.
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
            raise AssertionError("a cancelled call continues") from None
        assert task.cancelled() or not in_mid_call, f"a cancelled call continued and returned {_outcome(task)}"
        steps = steps % MOST_STEPS + 1 if in_mid_call else 1
    if not may_leave_tasks:
        await tasks_settled(before)


def _outcome(task: asyncio.Future[Any]) -> str:
    error = task.exception()
    return "an answer" if error is None else type(error).__name__


def listed(values: Sequence[Any] | DoesNotApply) -> list[Any]:
    """Return examples as a list, which is empty if they do not apply."""
    return [] if isinstance(values, DoesNotApply) else list(values)
