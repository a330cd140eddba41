"""The chat API as an ASGI app, served or mounted. Its lifespan composes it of plugins, in the serving event loop."""

import asyncio
import importlib.metadata
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jimsapi.api.admission import Gate, GateWithHeaders, authorization_servers, oauth_scopes, security_schemes
from jimsapi.api.chat import chat_routes
from jimsapi.api.contacts import contact_routes
from jimsapi.api.feedback import feedback_routes
from jimsapi.api.metrics import (
    CombinedRegistry,
    LoopCollector,
    MetricsOptions,
    MetricsPort,
    ServiceCollector,
    metrics_text,
)
from jimsapi.api.probes import probe_routes
from jimsapi.api.runs import run_ended, run_ended_cloud_event, run_routes
from jimsapi.api.stream import stream_routes
from jimsapi.api.threads import thread_routes
from jimsapi.api.usage import usage_routes
from jimsapi.api.websocket import websocket_routes
from jimsapi.asgi.app import App
from jimsapi.asgi.cors import Cors
from jimsapi.asgi.open_work import END_WITHIN
from jimsapi.asgi.record import Observer, RequestRecord
from jimsapi.asgi.response import ErrorResponse
from jimsapi.asgi.route import RouteConflict
from jimsapi.asgi.routing import Router
from jimsapi.asgi.types import ASGIApp
from jimsapi.builtin import builtin_plugins
from jimsapi.plugins.compose import (
    STORE,
    Built,
    Composer,
    Composition,
    Configuration,
    call_wrapper,
    check_requirements,
    enter_built,
    resolve_settings,
)
from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.discovery import OWN_DISTRIBUTION, plugin_options
from jimsapi.plugins.errors import PluginError, StartError
from jimsapi.plugins.lifespans import Lifespans
from jimsapi.plugins.manager import PluginManager
from jimsapi.plugins.options import Options, Settings
from jimsapi.plugins.secrets import redact
from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.durable_sinks import DurableSink
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.lists import Lists
from jimsapi.runs.observers import Observers
from jimsapi.runs.peers import Peers
from jimsapi.runs.pipeline import Pipeline, is_pipeline
from jimsapi.runs.replicas import Replicas
from jimsapi.runs.resolver import declared_headers, takes_context
from jimsapi.runs.service import RunService
from jimsapi.runs.sinks import SinkQueue, is_durable
from jimsapi.runs.subscriptions import Subscriptions
from jimsapi.runs.threads import ThreadService
from jimsapi.runs.watchdog import Watchdog
from jimsapi.runs.work import Worker
from jimsapi.threads.cloud_events import CLOUD_EVENTS_TYPE
from jimsapi.threads.run import ContextLimits, StoredRun
from jimsapi.threads.store import ThreadStore
from jimsapi.wire.errors import handle_domain_errors

if TYPE_CHECKING:
    from jimsapi.runs.webhooks import Webhooks

logger = logging.getLogger("jimsapi")

AREA = "/api/v1"
"""The path of the chat API, which is an OAuth protected resource if a provider has authorization servers."""

VERSION = importlib.metadata.version(OWN_DISTRIBUTION)
EXPOSED_HEADERS = (
    "accept-ranges", "content-disposition", "content-range", "etag", "location", "preference-applied", "ratelimit",
    "ratelimit-policy", "retry-after", "www-authenticate", "x-ignored-fields", "x-request-id", "x-run-id",
)  # fmt: skip
"""Response headers that pages of other origins may read, with `--cors-origin`."""


class Api(App):
    """The chat API as an ASGI app. `create_api` creates one.

    `app` is an app object, or None if `--app` names the app. `given` has the options that were given, and `options` the
    option classes of the caller. If `configuration` is None, each start loads the plugins and resolves `given`.
    `serve_metrics` opens the metrics port. A `worker` has no port for clients, and does the background runs that
    servers leave to workers. `peers` are other processes with the same store. `on_started(api)` is called after the
    start. `on_stopped(n)` is called when everything is closed; `n` pipelines swallowed their cancellation.
    `on_request` are called after every answer.
    """

    def __init__(
        self,
        app: Any,
        given: Mapping[str, Any],
        *,
        serve_metrics: bool = False,
        worker: bool = False,
        peers: Peers | None = None,
        options: Sequence[type[Options]] = (),
        on_started: Callable[["Api"], None] | None = None,
        on_stopped: Callable[[int], None] | None = None,
        on_request: Sequence[Callable[[RequestRecord], None]] = (),
        configuration: Configuration | None = None,
    ) -> None:
        super().__init__(
            title="jimsapi",
            version=VERSION,
            description="A conversational pipeline behind HTTP.",
        )
        self.composition: Composition | None = None
        self.service: RunService | None = None
        self._app = app
        self._given = given
        self._serve_metrics = serve_metrics
        self._worker = worker
        self._peers = peers
        self._options: list[type[Options]] = [MetricsOptions, *options]
        self._on_started = on_started
        self._on_stopped = on_stopped
        self._on_request = tuple(on_request)
        self._configuration = configuration
        self._watchdog = Watchdog()
        self._observers: Observers[RequestRecord] = Observers()
        self.refusal = _not_started()
        handle_domain_errors(self)

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Return the lifespan, which composes the app, serves it while entered, drains it and closes it.

        A server enters it; a host that mounts the app does it itself:

            async with api.lifespan(): ...

        Raises:
            StartError: the app cannot start as configured. The message has the reason and what to do.
            StoreUnusable: the store cannot be opened.
        """
        return self._compose_and_serve()

    def metrics(self) -> str:
        """Return the metrics of this app and of the process in Prometheus's text format.

        Raises `RuntimeError` if the app has not started.
        """
        if self.composition is None:
            raise RuntimeError("the app has not started: there are no metrics yet")
        return metrics_text(self.composition.registry)

    @asynccontextmanager
    async def _compose_and_serve(self) -> AsyncIterator[None]:
        if self.composition is not None:
            raise RuntimeError("this app has started already: its lifespan cannot be entered twice at the same time")
        self.open_work.reset()
        lifespans = Lifespans()
        port: MetricsPort | None = None
        with self.temporary_declarations():
            try:
                configuration = self._configuration or configure(self._options, self._given)
                composer = Composer(configuration)
                built = await composer.build(self._app)
                if self._peers is not None:
                    require_shareable(built.store)
                metrics = configuration.settings.get(MetricsOptions)
                if self._serve_metrics and metrics.port:
                    port = MetricsPort(metrics.host, metrics.port, CombinedRegistry(built.registry))
                composition = await composer.enter(built, lifespans)
                service = await lifespans.enter("run service", run_service(composition, self._peers))
                for resource in self.declare(composition, configuration.plugins, service):
                    await enter_built(resource, lifespans)
                await service.adopt()
                if self._worker:
                    await lifespans.enter("worker", worker_of(service))
                # The watchdog starts last, because the start may import modules for seconds.
                await lifespans.enter("watchdog of the event loop", self._watchdog)
                self.composition, self.service = composition, service
                self.refusal = None
                if self._on_started is not None:
                    self._on_started(self)
                yield
            finally:
                entered_service = self.service
                if entered_service is not None and self.composition is not None and not entered_service.draining:
                    await self.drain(self.composition.settings.get(CoreOptions).drain_time)  # the command did not
                self.refusal = _not_started()
                await lifespans.leave()
                if port is not None:
                    await asyncio.to_thread(port.close)
                self.composition = self.service = None
                if entered_service is not None and self._on_stopped is not None:
                    self._on_stopped(entered_service.abandoned_pipelines)

    def declare(self, composition: Composition, plugins: PluginManager, service: RunService) -> list[Built]:
        """Add the routes, authentication, observers, wrappers and metrics of a composition. None is added later.

        Returns the async context managers that the routes of plugins need entered.
        """
        core = composition.settings.get(CoreOptions)
        self.max_body = core.max_body
        self.origins = core.websocket_origin
        self.cors = Cors(core.cors_origin, EXPOSED_HEADERS) if core.cors_origin else None
        self.admit = gate(composition, service)
        self.security_schemes = MappingProxyType(security_schemes(composition.providers))
        cancels = core.on_disconnect == "cancel"
        for router in (chat_routes(service, cancels=cancels), stream_routes(service, cancels=cancels)):
            self.include(router)
        threads, lists = ThreadService(service), Lists(service)
        for router in (probe_routes(service), run_routes(service, lists), websocket_routes(service)):
            self.include(router)
        for routes in (thread_routes, feedback_routes, usage_routes):
            self.include(routes(threads))
        self.include(contact_routes(threads, lists))
        if core.docs != "off":
            self.docs(public=core.docs == "public")
        resources = add_plugin_routes(self, plugins, service, composition.settings)
        self._declare_resources(composition.providers)
        self._observers = composition.observers_of("on_request")
        self.on_request.extend((*self._observers.calls, *self._on_request))
        for built in composition.wrappers("jimsapi_asgi_wrapper"):
            wrap_by_plugin(self, built)
        composition.registry.register(ServiceCollector(service, self.open_work, VERSION))
        composition.registry.register(LoopCollector(self._watchdog))
        if not composition.providers and not self._worker:
            left_out = ", ".join(entry.name for entry in composition.left_out)
            note = f" (plugins that are not loaded: {left_out})" if left_out else ""
            if core.require_auth:
                raise StartError(
                    f"--require-auth: no auth provider is configured, so the API would be public{note}; set "
                    "JIMS_API_KEY_FILE or the options of another provider"
                )
            logger.warning(
                "NO AUTHENTICATION IS CONFIGURED: the API is public; set --api-key, or restrict the network%s", note
            )
        return resources

    def _declare_resources(self, providers: Sequence[Built]) -> None:
        """Serve the metadata of the OAuth protected resources, if a provider has authorization servers."""
        if servers := authorization_servers(providers):
            try:
                self.resource_metadata(servers, scopes=oauth_scopes(providers), areas=(AREA,))
            except RouteConflict as conflict:
                raise StartError(f"cannot serve the metadata of OAuth protected resources: {conflict}") from conflict

    def report_observer(self, observer: Observer, error: BaseException) -> None:
        """Log the first failure of an observer, with the name of its plugin."""
        if any(observer is call for call in self._observers.calls):
            self._observers.report(observer, error)
        else:
            super().report_observer(observer, error)

    def announce_drain(self) -> None:
        super().announce_drain()
        if self.service is not None:
            self.service.drain_announced = True

    async def drain(self, seconds: float) -> None:
        """Drain the service, and the streams, WebSockets and background work of all routes.

        A WebSocket may show the answers of runs, so WebSockets are closed after the runs have ended.
        """
        service = self.service
        if service is None:
            return
        service.draining = True
        self.open_work.begin()
        await asyncio.gather(self.open_work.wait(seconds), service.drain(seconds))
        self.open_work.close_websockets()
        await self.open_work.wait(END_WITHIN)
        await self.open_work.end()

    @property
    def work_text(self) -> str:
        """What a drain would wait for now, for a log line."""
        service = self.service
        runs = "" if service is None else f"{service.open_runs} runs are open, {service.waiting_runs} of them wait; "
        return runs + super().work_text

    def state(self) -> Iterator[str]:
        """Yield what the app works on, in lines for an operator. Any thread may read them."""
        yield from super().state()
        if self.service is not None:
            yield from self.service.state()

    def interrupt(self) -> None:
        """Let a drain end now, as after a second signal: stop the runs, and what else is open."""
        super().interrupt()
        if self.service is not None:
            self.service.interrupt()


def configure(options: Sequence[type[Options]], given: Mapping[str, Any]) -> Configuration:
    """Load the selected plugins, and resolve all options, including `options`. Raises `StartError`."""
    plugins = PluginManager(builtin_plugins(), options=plugin_options(given, os.environ))
    return Configuration(plugins, resolve_settings(plugins, options, given, os.environ))


def create_api(app: Any = None, **settings: Any) -> Api:
    """Create an ASGI app that serves `app`: a `JimsApp`, an async pipeline, a factory, or a `module:attribute`.

    `settings` are options by name (`store="memory:"`, `api_key="…"`); they override `JIMS_*` variables. No metrics
    port is opened unless `metrics_port` is passed. Serve the app with any ASGI server; a host that mounts it enters
    `api.lifespan()` in its own lifespan. A start raises an error for invalid settings.
    """
    if isinstance(app, str):
        settings["app"], app = app, None
    return Api(app, settings, serve_metrics=bool(settings.get("metrics_port")))


def run_service(composition: Composition, peers: Peers | None = None) -> RunService:
    """Return the run service of a composition. It is not entered yet. `peers` have the same store."""
    core = composition.settings.get(CoreOptions)
    app = composition.app
    events = core.context_events
    if app.context_events is not None and not composition.settings.is_given("context_events"):
        events = app.context_events
    store = composition.store.value
    disclosure = Disclosure(core.hide_errors, redact, app.private_events)
    commits = composition.observers_of("on_commit")
    if commits:
        store.on_commit = commits.notify
    sinks = composition.built["jimsapi_event_sink"]
    service = RunService(
        app,
        store,
        [built.value for built in composition.built["jimsapi_thread_resolver"]],
        limits=RunLimits(
            context=ContextLimits(events=events),
            thread_queue=core.thread_queue,
            reject_busy=core.thread_busy == "reject",
            queue_timeout=core.queue_timeout,
            run_timeout=core.run_timeout,
            max_runs=core.max_runs,
            keep_runs=timedelta(days=core.keep_runs),
            expire_threads=core.thread_lifetime,
            quota=core.quota,
        ),
        sinks=[SinkQueue(built.value, built.name) for built in sinks if not is_durable(built.value)],
        durable_sinks=[DurableSink(built.value, built.name) for built in sinks if is_durable(built.value)],
        on_run=composition.observers_of("on_run"),
        webhooks=build_webhooks(core, store, disclosure),
        subscriptions=Subscriptions(core.webhook_keys, allow_private=core.webhook_allow_private),
        disclosure=disclosure,
        resources=composition.resources,
        peers=peers,
        replicas=[Replicas(built.value, built.name) for built in composition.built["jimsapi_replica_link"]],
    )
    service.store = wrapped_store(composition)
    wrap_pipelines(service, composition)
    return service


def require_shareable(store: Built) -> None:
    """Raise `StartError` if the workers of `--workers` cannot share the store."""
    if not getattr(store.value, "shareable", False):
        raise StartError(
            f"--workers: only one process may open the store {store.name}; use --workers 1, or a store that processes "
            "share: --store postgresql://…, with the plugin jimsapi-postgres"
        )


def worker_of(service: RunService) -> Worker:
    """Return the worker, which does the runs that servers leave to it. Raises `StartError` if they have no queue."""
    worker = service.worker()
    if worker is None:
        raise StartError(
            "a worker needs a queue of background runs: set --nats-url and --nats-work, with the plugin jimsapi-nats, "
            "for the worker and for the servers"
        )
    return worker


def gate(composition: Composition, service: RunService) -> Gate:
    """Return the gate of a composition. Its admissions have headers only if a resolver declares some."""
    resolvers = [built.value for built in composition.built["jimsapi_thread_resolver"]]
    headers = frozenset[str]().union(*map(declared_headers, filter(takes_context, resolvers)))
    observers = composition.observers_of("on_admission")
    if headers:
        return GateWithHeaders(composition.providers, service, observers, headers)
    return Gate(composition.providers, service, observers)


def build_webhooks(core: CoreOptions, store: ThreadStore, disclosure: Disclosure) -> "Webhooks | None":
    """Return the object that calls webhooks, or None if there is no secret to sign the calls with."""
    if not core.webhook_keys:
        return None
    from jimsapi.runs.webhooks import Webhooks  # it imports an HTTP client

    as_cloud_event = core.webhook_format == "cloudevents"
    make = run_ended_cloud_event if as_cloud_event else run_ended

    def body(run: StoredRun) -> bytes:
        return make(disclosure.stored(run))

    return Webhooks(
        core.webhook_keys,
        store,
        body,
        content_type=CLOUD_EVENTS_TYPE if as_cloud_event else "application/json",
        allow_private=core.webhook_allow_private,
    )


def add_plugin_routes(app: App, plugins: PluginManager, service: RunService, settings: Settings) -> list[Built]:
    """Add the routes of plugins. Returns what their hooks returned, for example a database to enter.

    Raises `PluginError` if another route has the same path and method.
    """
    resources = []
    for implementation in plugins.implementations("jimsapi_routes"):
        router = Router(security_schemes=app.security_schemes)
        returned = implementation(router=router, service=service, settings=settings)
        resources.append(Built(implementation.entry, implementation.hook, returned))
        try:
            app.include(router)
        except RouteConflict as conflict:
            raise PluginError(f"{implementation.entry}: {conflict}; {implementation.entry.remedy}") from conflict
    return resources


def wrap_by_plugin(app: App, built: Built) -> None:
    """Put a plugin's wrapper around `app`. Raises `PluginError` if it fails or does not return an ASGI app."""

    def wrapper(inner: ASGIApp) -> ASGIApp:
        wrapped: ASGIApp = call_wrapper(built, inner)
        if not callable(wrapped):
            raise _wrong_type(built, wrapped, "an ASGI app")
        return wrapped

    app.wrap(wrapper)


def wrapped_store(composition: Composition) -> ThreadStore:
    """Return the store with the wrappers of plugins around it. Raises `PluginError` if one does not return a store."""
    store: ThreadStore = composition.store.value
    if not composition.store.is_usable:
        return store
    for built in composition.wrappers("jimsapi_store_wrapper"):
        store = call_wrapper(built, store)
        check_requirements(Built(built.entry, STORE, store), f"what {built.hook} built returned a store that")
    return store


def wrap_pipelines(service: RunService, composition: Composition) -> None:
    """Put the wrappers of plugins around the pipelines. Raises `PluginError` if one does not return a pipeline."""
    for built in composition.wrappers("jimsapi_pipeline_wrapper"):

        def wrap(pipeline: Pipeline, name: str, built: Built = built) -> Pipeline:
            wrapped: Pipeline = call_wrapper(built, pipeline, name)
            if not is_pipeline(wrapped):
                raise _wrong_type(built, wrapped, "an async pipeline")
            return wrapped

        service.wrap_pipelines(wrap)


def _wrong_type(built: Built, value: object, wanted: str) -> PluginError:
    text = f"what {built.hook} built returned a {type(value).__name__}, which is not {wanted}"
    return PluginError(f"{built.entry}: {text}; {built.entry.remedy}")


def _not_started() -> ErrorResponse:
    return ErrorResponse(
        "The API has not started: the app that mounts it must enter `async with api.lifespan()`",
        503,
        {"retry-after": "5", "connection": "close"},
    )
