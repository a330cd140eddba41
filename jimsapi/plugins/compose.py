"""Builds a server's parts: calls the hooks once, checks what they return, and keeps it in a frozen `Composition`.

The order is: options, app, store, auth providers, resolvers, sinks, replica links, observers, wrappers, metrics.
Building opens no files or connections, and `jimsapi check` without `--connect` only builds. Entering the composition
opens them.
"""

import inspect
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from jimsapi.asgi.app import App
from jimsapi.plugins.config_option import OF_THE_COMMAND, ConfigOptions, config_of
from jimsapi.plugins.core import CoreOptions, keys_of, missing_reporting_plugins, reject_options_of_missing_plugins
from jimsapi.plugins.discovery import OWN_DISTRIBUTION, PluginEntry, PluginOptions
from jimsapi.plugins.errors import PluginError, StartError
from jimsapi.plugins.hooks import BUILDS
from jimsapi.plugins.lifespans import Lifespans
from jimsapi.plugins.manager import Implementation, PluginManager, at, one_line
from jimsapi.plugins.metrics import MetricsRegistry
from jimsapi.plugins.options import Options, Owned, Settings, specs
from jimsapi.runs.observers import Observers
from jimsapi.runs.pipeline import JimsApp, takes_context
from jimsapi.threads.errors import StoreUnusable
from jimsapi.threads.file_store import FileStore

logger = logging.getLogger("jimsapi.plugins")

FIRST_PROVIDERS = ("key", "authentik")
"""Auth providers that are called before the others, in this order. `--auth-order` overrides it."""

ENTER_WITHIN = 60.0
"""Seconds within which a plugin's context manager has to be entered."""

PROVIDER, STORE, FILE_STORE = "jimsapi_auth_provider", "jimsapi_thread_store", "jimsapi_file_store"

BY_URL = (STORE, FILE_STORE)
"""Hooks that build an object for a URL. The first plugin that knows the URL builds it. The other hooks of `BUILDS` are
called once for each start, with the settings alone."""

MAX_FACTORIES = 4
"""How often a loaded object is called or awaited to get an app. An async factory that returns a factory needs three."""


class AppWithoutPipeline(StartError):
    """The app is a `jimsapi.asgi.App`, which answers requests and no messages. The command serves it alone."""

    def __init__(self, source: str, app: App, settings: Settings) -> None:
        self.source = source
        self.app = app
        self.settings = settings
        super().__init__(
            f"{source} is a jimsapi.asgi.App, which has no pipeline that answers messages: pass a pipeline here, and "
            "serve the App by itself, or mount both in one app"
        )


class Built(msgspec.Struct, frozen=True):
    """An object that a hook built, and the plugin of the hook."""

    entry: PluginEntry
    hook: str
    value: Any
    is_entered: bool = False

    @property
    def is_usable(self) -> bool:
        """Whether the object can be used now: it is not an async context manager that has to be entered first."""
        return self.is_entered or not isinstance(self.value, AbstractAsyncContextManager)

    @property
    def named(self) -> bool:
        """Whether the object has a name of its own."""
        return isinstance(getattr(self.value, "name", None), str)

    @property
    def name(self) -> str:
        """The object's name, or the plugin's if it has none, for example because it is not entered yet."""
        name = getattr(self.value, "name", None)
        return name if isinstance(name, str) and name else self.entry.name


class Composition(msgspec.Struct, frozen=True):
    """The parts of a server. `built` has the objects that hooks built, by hook; auth providers are in calling order."""

    settings: Settings
    plugins: list[tuple[PluginEntry, list[str]]]
    app: JimsApp
    store: Built
    built: Mapping[str, tuple[Built, ...]]
    registry: MetricsRegistry
    left_out: tuple[PluginEntry, ...] = ()
    """The installed plugins that `--plugins` or `--without-plugin` leaves out."""
    resources: Any = None
    """What the app's `lifespan` yielded, after the composition is entered."""

    @property
    def providers(self) -> tuple[Built, ...]:
        """The auth providers, in the order in which they are called."""
        return self.built[PROVIDER]

    def wrappers(self, hook: str) -> Sequence[Built]:
        """The wrappers that a hook built, the innermost first. Those that have to be entered first are omitted."""
        return [built for built in reversed(self.built[hook]) if built.is_usable]

    def observers_of(self, method: str) -> Observers[Any]:
        """The method of this name of each observer that has one."""
        having = [one for one in self.built["jimsapi_observer"] if hasattr(one.value, method)]
        return Observers([getattr(one.value, method) for one in having], [str(one.entry) for one in having])


def resolve_settings(
    plugins: PluginManager, extra: Sequence[type[Options]], given: Mapping[str, Any], environ: Mapping[str, str]
) -> Settings:
    """Resolve the options of the core, of every plugin, and of the classes in `extra`.

    `given` has values by key, from flags or keywords. Raises `StartError` for an invalid option.
    """
    config = config_of(given, environ)
    own: list[type[Options]] = [CoreOptions, ConfigOptions, PluginOptions, *extra]
    owned = [*(Owned(cls, OWN_DISTRIBUTION) for cls in own), *declared_options(plugins)]
    known = frozenset(spec.key for item in owned for spec in specs(item.options))
    left_out = [entry.distribution for entry in plugins.left_out]
    # A plugin that cannot be loaded has an error of its own, which says more.
    absent = known | keys_of([entry.distribution for entry in plugins.failed])
    reject_options_of_missing_plugins(absent, given, environ, config, left_out)
    if not known >= OF_THE_COMMAND:
        config = config.only(config.values.keys() - OF_THE_COMMAND)
    lacks_plugins = bool(plugins.left_out or plugins.failed)
    return Settings(owned, given, environ, plugins.implementations, config, lacks_plugins=lacks_plugins)


class Configuration(msgspec.Struct, frozen=True):
    """The plugins and the resolved options of one start."""

    plugins: PluginManager
    settings: Settings


def declared_options(plugins: PluginManager, broken: list[StartError] | None = None) -> list[Owned]:
    """Return the `Options` classes that the plugins declare.

    Raises `PluginError` for an invalid one. If `broken` is a list, it gets the error, and the class is left out.
    """
    owned = []
    for implementation in plugins.implementations("jimsapi_options"):
        try:
            owned.append(_declared_by(implementation))
        except StartError as error:
            if broken is None:
                raise
            broken.append(error)
    return owned


def _declared_by(implementation: Implementation) -> Owned:
    cls = implementation()
    if not (isinstance(cls, type) and issubclass(cls, Options)):
        raise implementation.refusal(f"returned {_type_name(cls)}, which is not an Options class")
    try:
        specs(cls)
    except Exception as error:
        raise implementation.refusal(f"declares an invalid option: {one_line(error)}") from error
    return Owned(cls, implementation.entry.distribution)


class Composer:
    """Builds the composition of one app from its plugins."""

    def __init__(self, configuration: Configuration) -> None:
        self._plugins = configuration.plugins
        self._settings = configuration.settings
        self._core = self._settings.get(CoreOptions)

    async def build(self, app: Any = None) -> Composition:
        """Call every hook that builds something. `app` is an app object, or None to load `--app`.

        Raises:
            AppWithoutPipeline: the app is a `jimsapi.asgi.App`.
            StartError: a part cannot be built or is not configured. The message is for the operator.
        """
        for warning in self._settings.warnings:
            logger.warning(warning)
        left_out = {entry.distribution for entry in self._plugins.left_out}
        for variable, distribution in missing_reporting_plugins(self._settings.known, os.environ):
            if distribution in left_out:
                logger.warning("%s is set, but %s is not loaded: NOTHING IS REPORTED", variable, distribution)
                continue
            logger.warning(
                "%s is set, but %s is not installed: NOTHING IS REPORTED; pip install %s, or unset it",
                variable,
                distribution,
                distribution,
            )
        jims_app = await self._build_app(app)
        composition = Composition(
            settings=self._settings,
            plugins=[(entry, self._plugins.hooks_of(entry)) for entry, _ in self._plugins.plugins],
            app=jims_app,
            store=self._build_store(jims_app),
            built={hook: self._build_objects(hook) for hook in BUILDS if hook not in BY_URL},
            registry=MetricsRegistry(OWN_DISTRIBUTION),
            left_out=tuple(self._plugins.left_out),
        )
        # jimsapi's own metrics register first. If a plugin uses one of their names, the plugin then gets the error.
        metrics = self._plugins.implementations("jimsapi_metrics")
        for implementation in sorted(metrics, key=lambda one: one.entry.is_third_party):
            composition.registry.owner = implementation.entry.name
            implementation(registry=composition.registry, settings=self._settings)
        composition.registry.owner = OWN_DISTRIBUTION
        return composition

    async def enter(
        self,
        composition: Composition,
        lifespans: Lifespans,
        *,
        store: bool = True,
        hooks: Collection[str] = BUILDS,
    ) -> Composition:
        """Enter the async context managers, the store first and the app's last. Returns the entered composition.

        If `store` is false, the store is not entered. Of the other objects, only those of `hooks` are entered.

        Raises `StoreUnusable` or `StartError` if one of them raises that, and `PluginError` for any other exception.
        """
        return msgspec.structs.replace(
            composition,
            store=await enter_built(composition.store, lifespans) if store else composition.store,
            built={
                hook: await self._enter_built(composition, hook, lifespans) if hook in hooks else built
                for hook, built in composition.built.items()
            },
            resources=await _enter_app(composition.app, lifespans),
        )

    async def enter_providers(self, composition: Composition, lifespans: Lifespans) -> tuple[Built, ...]:
        """Enter only the auth providers, and return them in calling order. Raises as `enter` does."""
        return await self._enter_built(composition, PROVIDER, lifespans)

    async def _enter_built(self, composition: Composition, hook: str, lifespans: Lifespans) -> tuple[Built, ...]:
        entered = tuple([await enter_built(one, lifespans) for one in composition.built[hook]])
        return self._sorted_providers(entered) if hook == PROVIDER else entered

    async def _build_app(self, app: Any) -> JimsApp:
        """Load the app. Call factories and await coroutines until the result is an app or a plugin adapts it."""
        source = "the app" if app is not None else f"--app {self._core.app}"
        if app is None:
            app = self._load(source)
        for _ in range(MAX_FACTORIES):
            adapted = self._adapt(app)
            if adapted is not None:
                return adapted
            if isinstance(app, App):
                raise AppWithoutPipeline(source, app, self._settings)
            try:
                if inspect.isawaitable(app):
                    app = await app
                elif not isinstance(app, type) and takes_context(app):
                    raise StartError(
                        f"{source} is a {type(app).__name__} that needs an argument, so it does not return an app; a "
                        "plain `def` pipeline is served as JimsApp(pipeline)"
                    )
                elif callable(app):
                    app = app()
                else:
                    break
            except StartError:
                raise
            except (Exception, SystemExit) as error:
                raise StartError(f"{source}: making the app failed: {one_line(error)}") from error
        raise StartError(
            f"{source} is {_type_name(app)}: it must be a JimsApp, an async pipeline, a function that returns one of "
            "them, or what an installed plugin adapts"
        )

    def _load(self, source: str) -> Any:
        for implementation in self._plugins.implementations("jimsapi_load_app"):
            loaded = _call_hook(implementation, source, reference=self._core.app, settings=self._settings)
            if loaded is not None:
                return loaded
        raise StartError(f"{source}: no plugin can load this reference; give module:attribute")

    def _adapt(self, app: Any) -> JimsApp | None:
        if isinstance(app, JimsApp):
            return app
        for implementation in self._plugins.implementations("jimsapi_adapt_app"):
            adapted = implementation(obj=app, settings=self._settings)
            if isinstance(adapted, JimsApp):
                return _with_lifespan(adapted, app)
            if adapted is not None:
                raise implementation.refusal(f"returned {_type_name(adapted)}, which is not a JimsApp")
        return None

    def _build_store(self, app: JimsApp) -> Built:
        url = self._core.store if self._settings.is_given("store") or app.store is None else app.store
        return build_store(url, f"--store {without_password(url)}", self._plugins, self._settings)

    def _sorted_providers(self, providers: tuple[Built, ...]) -> tuple[Built, ...]:
        if any(isinstance(built.value, AbstractAsyncContextManager) for built in providers if not built.named):
            return providers  # the order needs all names, and a context manager may have one only after it is entered
        names: dict[str, Built] = {}
        for built in providers:
            other = names.setdefault(built.name, built)
            if other is not built:
                raise PluginError(
                    f"two auth providers are named {built.name}: one of distribution {other.entry.distribution}, "
                    f"one of {built.entry.distribution}; pip uninstall one of the two"
                )
        order = [name.strip() for name in (self._core.auth_order or "").split(",") if name.strip()]
        for name in order:
            if name not in names:
                raise StartError(
                    f"--auth-order names {name}, which is not installed or not configured (there are: "
                    f"{', '.join(names) or 'none'}); configure it, or leave it out"
                )
        in_order = dict.fromkeys([*order, *(name for name in FIRST_PROVIDERS if name in names), *names])
        return tuple(names[name] for name in in_order)

    def _build_objects(self, hook: str) -> tuple[Built, ...]:
        returned = [(one.entry, one(settings=self._settings)) for one in self._plugins.implementations(hook)]
        built = tuple(_check_built(Built(entry, hook, value)) for entry, value in returned if value is not None)
        return self._sorted_providers(built) if hook == PROVIDER else built


def build_store(url: str, source: str, plugins: PluginManager, settings: Settings) -> Built:
    """Return the store for a URL, from the first plugin whose hook `jimsapi_thread_store` knows the URL.

    `source` names the URL in errors, without its password. The store is not open yet.

    Raises `StartError` if no plugin knows the URL, or if the URL is faulty, and `PluginError` if the plugin is faulty.
    """
    settings.guard(url)
    store = _first_built(plugins.implementations(STORE), source, url, settings)
    if store is not None:
        return _check_built(store)
    raise StartError(
        f"{source}: no installed plugin keeps threads there; jimsapi itself supports sqlite:///relative.db, "
        "sqlite:////absolute.db and memory:"
    )


def build_file_store(url: str, flag: str, settings: Settings) -> FileStore:
    """Return the file store for a URL, from the first plugin whose hook `jimsapi_file_store` knows the URL.

    A plugin calls it in its own hooks. `flag` is the option with the URL, for error messages. The file store is not
    open yet: enter it before you use it, for example in the async context manager that `jimsapi_routes` returns.

    Raises `StartError` if no plugin knows the URL, or if the URL is faulty, and `PluginError` if the plugin is faulty.
    """
    settings.guard(url)
    source = f"{flag} {without_password(url)}"
    built = _first_built(settings.implementations(FILE_STORE), source, url, settings)
    if built is None:
        raise StartError(
            f"{source}: no installed plugin keeps files there; jimsapi-files supports file:///folder, and jimsapi-s3 "
            "s3://bucket/folder"
        )
    check_requirements(built, f"what {built.hook} built, {_type_name(built.value)},")
    store: FileStore = built.value
    return store


def _first_built(implementations: Sequence[Implementation], source: str, url: str, settings: Settings) -> Built | None:
    """Return the object of the first hook that builds one for the URL; None if there is none."""
    for implementation in implementations:
        value = _call_hook(implementation, source, url=url, settings=settings)
        if value is not None:
            return Built(implementation.entry, implementation.hook, value)
    return None


def _call_hook(implementation: Implementation, source: str, **arguments: Any) -> Any:
    """Call a hook that raises `ValueError` for a mistake of the operator. Raises `StartError` in place of that."""
    try:
        return implementation(**arguments)
    except PluginError as error:
        if type(error.__cause__) is ValueError:
            raise StartError(f"{source}: {' '.join(str(error.__cause__).split())}") from error
        raise


def _check_built(built: Built) -> Built:
    """Check the object that a hook built. A context manager is checked after it is entered."""
    if not isinstance(built.value, AbstractAsyncContextManager):
        check_requirements(built, f"what {built.hook} built, {_type_name(built.value)},")
    return built


def check_requirements(built: Built, what: str) -> None:
    """Raise `PluginError` if an object does not meet its hook's requirements. The message begins with `what`."""

    def refusal(fault: str) -> PluginError:
        return PluginError(f"{built.entry}: {what} {fault}; {built.entry.remedy}")

    build = BUILDS[built.hook]
    if isinstance(built.value, type) and not build.may_be_a_class:
        raise refusal("is a class: return an instance")
    optional = [method for method in build.optional_async_methods if hasattr(built.value, method)]
    for attribute in build.texts:
        value = getattr(built.value, attribute, ())
        is_list = isinstance(value, Collection) and not isinstance(value, str)
        if not is_list or not all(isinstance(text, str) for text in value):
            raise refusal(f"has an attribute {attribute} that is not a list of texts")
    for method in (*build.async_methods, *optional, *build.methods):
        function = getattr(built.value, method, None)
        if not callable(function):
            raise refusal(f"has no {method}()")
        if method not in build.methods and inspect.isroutine(function) and not _is_async(function):
            raise refusal(f"has a {method}() that is not async")
    name = getattr(built.value, "name", None)
    if build.named and not (isinstance(name, str) and name):
        raise refusal("has no name; set its attribute `name`, which logs and options show")
    observer_methods = [method for method in build.observer_methods if hasattr(built.value, method)]
    if build.observer_methods and not observer_methods:
        raise refusal(f"has none of {', '.join(build.observer_methods)}")
    for method in observer_methods:
        function = getattr(built.value, method)
        if not callable(function) or _is_async(function):
            raise refusal(f"has an {method} that is not a plain function; jimsapi never awaits observers")


def call_wrapper(built: Built, *arguments: Any) -> Any:
    """Call the wrapper that a hook built. Raises `PluginError` if it raises."""
    try:
        return built.value(*arguments)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{built.entry}: what {built.hook} built failed: {one_line(error)}{at(error)}; {built.entry.remedy}"
        ) from error


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(function))


def _with_lifespan(app: JimsApp, adapted: Any) -> JimsApp:
    """Return the app with the object that a plugin adapted as its lifespan, if that is an async context manager.

    If the plugin gave the app a `lifespan`, that decides instead.
    """
    if app.lifespan is not None or not isinstance(adapted, AbstractAsyncContextManager):
        return app
    return app.with_lifespan(lambda: adapted)


async def _enter_app(app: JimsApp, lifespans: Lifespans) -> Any:
    """Enter the app's `lifespan`, and return what it yields. Raises `StartError` if it fails."""
    if app.lifespan is None:
        return None
    try:
        return await lifespans.enter("the app's lifespan", app.lifespan(), ENTER_WITHIN)
    except StartError:
        raise
    except (Exception, SystemExit) as error:
        raise StartError(f"the app's lifespan failed: {one_line(error)}{at(error)}") from error


async def enter_built(built: Built, lifespans: Lifespans) -> Built:
    """Enter an object if it is an async context manager, and return it as usable.

    Raises `StoreUnusable` or `StartError` if the object raises that, and `PluginError` for any other exception.
    """
    if not isinstance(built.value, AbstractAsyncContextManager):
        return built
    try:
        value = await lifespans.enter(f"{built.hook} of {built.entry.distribution}", built.value, ENTER_WITHIN)
    except (StoreUnusable, StartError):  # the message is already for the operator
        raise
    except Exception as error:
        raise PluginError(
            f"{built.entry}: what {built.hook} built could not be entered: {one_line(error)}{at(error)}; "
            f"{built.entry.remedy}"
        ) from error
    entered = msgspec.structs.replace(built, value=built.value if value is None else value, is_entered=True)
    if built.hook in BUILDS:
        check_requirements(
            entered, f"what {built.hook} built returned {_type_name(entered.value)} from __aenter__, which"
        )
    return entered


def without_password(url: str) -> str:
    """Return a store's URL with `***` in place of the user, the password and the parameters, for logs and errors."""
    shown, parameters, _ = url.partition("?")
    return re.sub(r"://.*@", "://***@", shown) + ("?***" if parameters else "")


def _type_name(value: object) -> str:
    name = f"{value.__name__} class" if isinstance(value, type) else type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeiou' else 'a'} {name}"
