"""Finding plugins, loading them, and refusing what would fail silently later."""

import difflib
import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import msgspec
import pluggy

from jimsapi.plugins import hooks
from jimsapi.plugins.errors import PluginError, StartError

GROUP = "jimsapi"
OWN_DISTRIBUTION = "jimsapi"
PREFIX = "jimsapi_"
BUILT_IN = "built in"
MAY_BE_AWAITED = "jimsapi_load_app"
"""The hook that may return an awaitable: an app may be a coroutine object, and the composer awaits it."""


class PluginEntry(msgspec.Struct, frozen=True):
    """A plugin as its distribution's metadata describes it; nothing of it is imported."""

    name: str
    value: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin {self.name} ({self.value}, distribution {self.distribution} {self.version})"

    @property
    def foreign(self) -> bool:
        """Whether it was installed beside jimsapi, rather than coming with it."""
        return self.value != BUILT_IN

    @property
    def way_out(self) -> str:
        """What an operator does to start without it."""
        return f"mend it, or: pip uninstall {self.distribution}"


class Implementation(msgspec.Struct, frozen=True):
    """One plugin's function for one hook."""

    entry: PluginEntry
    hook: str
    function: Any
    parameters: tuple[str, ...]

    def refusal(self, fault: str) -> PluginError:
        """The error for what this function did."""
        return PluginError(f"{self.entry}: {self.hook} {fault}; {self.entry.way_out}")

    def __call__(self, **arguments: Any) -> Any:
        """Call the function with those of `arguments` that it takes; what goes wrong names the plugin.

        Raises:
            PluginError: it raised, or returned an awaitable, which nobody would await.
            StartError: it raised one, about what the operator configured; its words are for him.
        """
        try:
            built = self.function(**{name: arguments[name] for name in self.parameters})
        except (Exception, SystemExit) as error:
            if type(error) is StartError:
                raise
            raise self.refusal(f"failed: {one_line(error)}") from error
        if self.hook != MAY_BE_AWAITED and (inspect.isawaitable(built) or inspect.isasyncgen(built)):
            if inspect.iscoroutine(built):
                built.close()
            raise self.refusal(
                "returned an awaitable; hooks are plain functions, what they build may be an async context manager"
            )
        return built


def discover() -> list[PluginEntry]:
    """The installed plugins in the order they are asked: by distribution, then by name. Imports none of them."""
    entries = []
    for point in importlib.metadata.entry_points(group=GROUP):
        metadata = point.dist
        name = "unknown" if metadata is None else metadata.metadata["Name"] or "unknown"
        version = "unknown" if metadata is None else metadata.version or "unknown"
        entries.append(PluginEntry(point.name, point.value, name, version))
    return sorted(set(entries), key=lambda entry: (entry.distribution.lower(), entry.name))


class PluginManager:
    """The plugins of one app: those installed (unless not `installed`), and `builtins`, which are asked after them.

    Raises:
        PluginError: a plugin cannot be imported, or implements a hook in a way that would not work; the message names
            it, its distribution, the cause and the way out.
    """

    def __init__(self, builtins: Mapping[str, object], *, installed: bool = True) -> None:
        self.plugins: list[tuple[PluginEntry, object]] = []
        self._pluggy = pluggy.PluginManager(hooks.PROJECT)
        self._pluggy.add_hookspecs(hooks)
        self._implementations: dict[str, list[Implementation]] = {name: [] for name in hook_names()}
        entries = discover() if installed else []
        _refuse_twins(entries)
        for entry in entries:
            self._register(entry, _load(entry))
        version = importlib.metadata.version(OWN_DISTRIBUTION) if builtins else ""
        for name, plugin in builtins.items():
            self._register(PluginEntry(name, BUILT_IN, OWN_DISTRIBUTION, version), plugin)

    def implementations(self, hook: str) -> list[Implementation]:
        """The implementations of a hook, in the order they are asked."""
        return self._implementations[hook]

    def hooks_of(self, entry: PluginEntry) -> list[str]:
        """The hooks that a plugin implements."""
        return [name for name, found in self._implementations.items() if any(one.entry is entry for one in found)]

    def _register(self, entry: PluginEntry, plugin: object) -> None:
        found = [_implementation(entry, name, value) for name, value in _candidates(plugin)]
        if not found:
            raise PluginError(f"{entry} implements no hook; {entry.way_out}")
        try:
            self._pluggy.register(plugin, name=f"{entry.distribution}:{entry.name}")
        except Exception as error:
            raise PluginError(f"{entry}: {one_line(error)}; {entry.way_out}") from error
        self.plugins.append((entry, plugin))
        for implementation in found:
            self._implementations[implementation.hook].append(implementation)


def hook_names() -> list[str]:
    """The names of all hooks."""
    return [name for name in vars(hooks) if name.startswith(PREFIX)]


def _refuse_twins(entries: list[PluginEntry]) -> None:
    """Of two distributions that claim one name, pluggy would take the first and say nothing."""
    owners: dict[str, PluginEntry] = {}
    for entry in entries:
        other = owners.setdefault(entry.name, entry)
        if other is not entry:
            raise PluginError(
                f"two plugins are named {entry.name}: one of distribution {other.distribution} {other.version}, one of "
                f"{entry.distribution} {entry.version}; pip uninstall one of the two"
            )


def _load(entry: PluginEntry) -> object:
    try:
        return importlib.metadata.EntryPoint(entry.name, entry.value, GROUP).load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"{entry} cannot be imported: {one_line(error)}; {entry.way_out}") from error


def _candidates(plugin: object) -> Iterator[tuple[str, Any]]:
    """The attributes of a plugin that are meant as hooks: by name, or by the mark of `@hookimpl`."""
    for name in dir(plugin):
        if name.startswith("__"):
            continue
        value = inspect.getattr_static(plugin, name, None) if not isinstance(plugin, ModuleType) else None
        if isinstance(value, property):
            continue
        value = getattr(plugin, name, None)
        if callable(value) and (name.startswith(PREFIX) or isinstance(_mark(value), dict)):
            yield name, value


def _mark(function: Any) -> Any:
    return getattr(function, hooks.PROJECT + "_impl", None)


def _implementation(entry: PluginEntry, name: str, function: Any) -> Implementation:
    """Check a hook implementation. Raises `PluginError` for everything that pluggy would let fail silently or late."""

    def refuse(fault: str) -> PluginError:
        return PluginError(f"{entry}: {name} {fault}; {entry.way_out}")

    mark = _mark(function)
    if not isinstance(mark, dict):
        raise refuse("is not marked @hookimpl and would never be called: mark it, or give it another name")
    hook = mark.get("specname") or name
    if hook not in hook_names():
        near = difflib.get_close_matches(hook, hook_names(), n=1)
        raise refuse("is no hook of jimsapi" + (f": did you mean {near[0]}?" if near else ""))
    if mark.get("wrapper") or mark.get("hookwrapper"):
        raise refuse("is a wrapper; hooks of jimsapi are not wrapped")
    if mark.get("optionalhook"):
        raise refuse("is marked optional; a hook exists or it does not")
    if mark.get("tryfirst") or mark.get("trylast"):
        raise refuse(
            "asks for a place in the order, which is by distribution name: --auth-order sets that of providers"
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise refuse("is async; hooks build things and are plain functions, what they build may have async methods")
    return Implementation(entry, hook, function, _parameters(hook, function, refuse))


def _parameters(hook: str, function: Any, refuse: Any) -> tuple[str, ...]:
    known = inspect.signature(getattr(hooks, hook)).parameters
    names = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise refuse(f"has the parameter {parameter}, which is not a plain positional one")
        if parameter.default is not parameter.empty:
            raise refuse(f"gives {parameter.name} a default; hooks get every parameter that they name")
        if parameter.name not in known:
            raise refuse(f"has the parameter {parameter.name}; the hook has {', '.join(known) or 'none'}")
        names.append(parameter.name)
    return tuple(names)


def one_line(error: BaseException) -> str:
    """An exception's class and text on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
