"""Loads plugins, and rejects those that would fail later without an error."""

import difflib
import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import ModuleType
from typing import Any

import msgspec
import pluggy

from jimsapi.plugins import hooks
from jimsapi.plugins.discovery import (
    BUILT_IN,
    GROUP,
    OWN_DISTRIBUTION,
    PluginEntry,
    PluginOptions,
    discover,
    reject_duplicate_name,
    reject_other_version,
    select,
)
from jimsapi.plugins.errors import PluginError, StartError
from jimsapi.runs.plugin_code import raised_at

PREFIX = "jimsapi_"
MAY_BE_AWAITED = "jimsapi_load_app"
"""The only hook that may return an awaitable: an app may be a coroutine object, which the composer awaits."""


class Implementation(msgspec.Struct, frozen=True):
    """One plugin's function for one hook."""

    entry: PluginEntry
    hook: str
    function: Any
    parameters: tuple[str, ...]

    def refusal(self, fault: str) -> PluginError:
        """Return the error for a fault of this function."""
        return PluginError(f"{self.entry}: {self.hook} {fault}; {self.entry.remedy}")

    def __call__(self, **arguments: Any) -> Any:
        """Call the function with those of `arguments` that it has parameters for.

        Raises:
            PluginError: the function raised, or returned an awaitable, which jimsapi would not await.
            StartError: the function raised `StartError` itself, for a mistake of the operator.
        """
        try:
            returned = self.function(**{name: arguments[name] for name in self.parameters})
        except (Exception, SystemExit) as error:
            if type(error) is StartError:
                raise
            raise self.refusal(f"failed: {one_line(error)}{at(error)}") from error
        if self.hook != MAY_BE_AWAITED and (inspect.isawaitable(returned) or inspect.isasyncgen(returned)):
            if inspect.iscoroutine(returned):
                returned.close()
            raise self.refusal(
                "returned an awaitable; hooks are plain functions, but may return an async context manager"
            )
        return returned


class PluginManager:
    """The plugins of one app: the installed ones that `options` select, then `builtins`, by name.

    - `options`: None selects all installed plugins. `installed=False` selects none.
    - `broken`: a list that gets the errors of plugins that cannot be loaded. The others are then loaded without them,
      for commands that must work beside a broken plugin.
    - `left_out`: the installed plugins that are not selected. `failed`: those that cannot be loaded.

    Raises:
        PluginError: a plugin cannot be imported, requires another version of jimsapi, or implements a hook in a way
            that would not work, and `broken` is None. The message names the plugin, its distribution and the cause,
            and says what to do.
        StartError: `options` name a plugin that is not installed.
    """

    def __init__(
        self,
        builtins: Mapping[str, object],
        *,
        installed: bool = True,
        options: PluginOptions | None = None,
        broken: list[StartError] | None = None,
    ) -> None:
        self.plugins: list[tuple[PluginEntry, object]] = []
        self._pluggy = pluggy.PluginManager(hooks.PROJECT)
        self._pluggy.add_hookspecs(hooks)
        self._implementations: dict[str, list[Implementation]] = {name: [] for name in hook_names()}
        version = importlib.metadata.version(OWN_DISTRIBUTION)
        entries = discover() if installed else []
        selected = select(entries, options or PluginOptions())
        self.left_out = [entry for entry in entries if entry not in selected]
        self.failed: list[PluginEntry] = []
        for entry in selected:
            try:
                reject_duplicate_name(entry, selected)
                reject_other_version(entry, version)
                self._register(entry, _load(entry))
            except PluginError as error:
                if broken is None:
                    raise
                broken.append(error)
                self.failed.append(entry)
        for name, plugin in builtins.items():
            self._register(PluginEntry(name, BUILT_IN, OWN_DISTRIBUTION, version), plugin)

    def implementations(self, hook: str) -> list[Implementation]:
        """The implementations of a hook, in the order in which they are called."""
        return self._implementations[hook]

    def hooks_of(self, entry: PluginEntry) -> list[str]:
        """The hooks that a plugin implements."""
        return [name for name, found in self._implementations.items() if any(one.entry is entry for one in found)]

    def _register(self, entry: PluginEntry, plugin: object) -> None:
        candidates = list(_candidates(plugin))
        if not candidates:
            raise PluginError(f"{entry} implements no hook; {entry.remedy}")
        found = [
            _implementation(entry, name, value) for name, value in candidates if not _is_of_later_version(name, value)
        ]
        try:
            self._pluggy.register(plugin, name=f"{entry.distribution}:{entry.name}")
        except Exception as error:
            raise PluginError(f"{entry}: {one_line(error)}; {entry.remedy}") from error
        self.plugins.append((entry, plugin))
        for implementation in found:
            self._implementations[implementation.hook].append(implementation)


def hook_names() -> list[str]:
    """The names of all hooks."""
    return [name for name in vars(hooks) if name.startswith(PREFIX)]


def _load(entry: PluginEntry) -> object:
    """Import a plugin. If it is a class, return a new object of it, so that its hooks share an object for each app."""
    try:
        plugin = importlib.metadata.EntryPoint(entry.name, entry.value, GROUP).load()
        return plugin() if isinstance(plugin, type) else plugin
    except (Exception, SystemExit) as error:
        raise PluginError(f"{entry} cannot be imported: {one_line(error)}{at(error)}; {entry.remedy}") from error


def _candidates(plugin: object) -> Iterator[tuple[str, Any]]:
    """The attributes of a plugin that are meant as hooks: by their name, or because they are marked `@hookimpl`."""
    for name in dir(plugin):
        if name.startswith("__"):
            continue
        value = inspect.getattr_static(plugin, name, None) if not isinstance(plugin, ModuleType) else None
        if isinstance(value, property | cached_property):
            continue
        if name.startswith(PREFIX):
            value = getattr(plugin, name, None)
            if callable(value):
                yield name, value
        elif _is_marked(plugin, name):
            yield name, getattr(plugin, name)


def _is_marked(plugin: object, name: str) -> bool:
    """Whether an attribute is a function that is marked `@hookimpl`. An attribute that cannot be read is not."""
    try:
        value = getattr(plugin, name, None)
        return callable(value) and isinstance(_mark(value), dict)
    except Exception:  # a proxy of another library, which has no object yet
        return False


def _mark(function: Any) -> Any:
    return getattr(function, hooks.PROJECT + "_impl", None)


def _is_of_later_version(name: str, function: Any) -> bool:
    """Whether a function implements a hook that this version of jimsapi lacks, and is marked as optional for that."""
    mark = _mark(function)
    if not isinstance(mark, dict) or not mark.get("optionalhook"):
        return False
    return (mark.get("specname") or name) not in hook_names()


def _implementation(entry: PluginEntry, name: str, function: Any) -> Implementation:
    """Check a hook implementation. Raises `PluginError` for faults that pluggy reports late or not at all."""

    def refusal(fault: str) -> PluginError:
        return PluginError(f"{entry}: {name} {fault}; {entry.remedy}")

    mark = _mark(function)
    if not isinstance(mark, dict):
        raise refusal("is not marked @hookimpl and would never be called: mark it, or give it another name")
    hook = mark.get("specname") or name
    if hook not in hook_names():
        near = difflib.get_close_matches(hook, hook_names(), n=1)
        raise refusal("is not a hook of jimsapi" + (f": did you mean {near[0]}?" if near else ""))
    if mark.get("wrapper") or mark.get("hookwrapper"):
        raise refusal("is a wrapper, which jimsapi does not support")
    if mark.get("tryfirst") or mark.get("trylast"):
        raise refusal(
            "is marked tryfirst or trylast; the order is by distribution name, and --auth-order sets that of providers"
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise refusal("is async; hooks are plain functions, but may return objects with async methods")
    return Implementation(entry, hook, function, _parameters(hook, function, refusal))


def _parameters(hook: str, function: Any, refusal: Any) -> tuple[str, ...]:
    known = inspect.signature(getattr(hooks, hook)).parameters
    names = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise refusal(f"has the parameter {parameter}, which is not a plain positional one")
        if parameter.default is not parameter.empty:
            raise refusal(f"gives {parameter.name} a default; jimsapi passes every parameter that a hook names")
        if parameter.name not in known:
            raise refusal(f"has the parameter {parameter.name}; the hook has {', '.join(known) or 'none'}")
        names.append(parameter.name)
    return tuple(names)


def at(error: BaseException) -> str:
    """Return where the code of a plugin raised, for an error message; empty if that is not known."""
    place = raised_at(error)
    return f" (at {place})" if place else ""


def one_line(error: BaseException) -> str:
    """Return an exception's class and text on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
