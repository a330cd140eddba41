"""The hooks: every way in which a plugin takes part.

A plugin is a module (or an object) under an entry point of the group `jimsapi`, with functions that are named as below
and marked `@hookimpl`. A function may leave out parameters that it does not need, and declares no others. **Hooks build
things when the server starts; a request never calls one.** They are plain functions: what they build may have async
methods, and may be an async context manager, which is entered before the first request and left after the last, in
reverse order.

Implementations are asked in order of their distribution's name, those of jimsapi itself last, unless a hook says
otherwise. A hook that raises stops the start, with a line that names the plugin.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pluggy

from jimsapi.asgi.routing import Router
from jimsapi.asgi.types import ASGIApp
from jimsapi.plugins.options import Options, Settings
from jimsapi.plugins.protocols import AuthProvider, EventSink, ThreadResolver, ThreadStore
from jimsapi.runs.pipeline import JimsApp
from jimsapi.runs.service import RunService

if TYPE_CHECKING:
    # Only names of annotations: a start that serves no metrics and no command line need not load them.
    import click
    from prometheus_client import CollectorRegistry

PROJECT = "jimsapi"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function as the implementation of the hook that it is named after."""


class Build(msgspec.Struct, frozen=True):
    """What a hook builds has to be: it has the async methods `awaited` and the methods `called`, and one or more of the
    plain functions `told`. If it is `named`, operators know it by its attribute `name`. If it `may_be_a_class`, a class
    can be what is called."""

    awaited: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    named: bool = False
    may_be_a_class: bool = False


BUILDS: dict[str, Build] = {}
"""The hooks that build something, in the order in which what they build is entered; the store comes before all."""

Spec = TypeVar("Spec", bound=Callable[..., Any])


def builds(build: Build) -> Callable[[Spec], Spec]:
    """Mark the specification of a hook that builds something."""

    def mark(function: Spec) -> Spec:
        BUILDS[function.__name__] = build
        return hookspec(function)

    return mark


@hookspec
def jimsapi_options() -> type[Options]:  # type: ignore[empty-body]
    """Declare options: each becomes a flag, a `JIMS_*` variable and a keyword of `create_api`.

    Called first of all, before anything is configured. Return one `Options` class. An option that two plugins declare
    stops the start.

        class TicketOptions(Options, prefix="ticket"):
            secret: Secret | None = option(help="Shared ticket.")

        @hookimpl
        def jimsapi_options():
            return TicketOptions
    """


@hookspec
def jimsapi_load_app(reference: str, settings: Settings) -> Any | None:
    """Turn `--app` into an app object, for references of a form of your own.

    Called once, with the reference as given. Return the object (a `JimsApp`, an async pipeline, a factory, a coroutine,
    or whatever a `jimsapi_adapt_app` recognises), or None if the reference is not of your form: then the next is asked,
    at last jimsapi's own loader, which imports `module:attribute`. Raise `ValueError` with a plain message if it is of
    your form and cannot be loaded.

        @hookimpl
        def jimsapi_load_app(reference):
            return load_flow(reference) if reference.endswith(".flow") else None
    """


@hookspec
def jimsapi_adapt_app(obj: Any, settings: Settings) -> JimsApp | None:
    """Recognise a foreign app object and wrap it in a `JimsApp`.

    Called with what the loader found, after factories were called and coroutines awaited. Return a `JimsApp`, or None
    if you do not know the object; the first answer counts. The `JimsApp` may carry `store` and `context_events`, which
    the operator's explicit options override.

        @hookimpl
        def jimsapi_adapt_app(obj):
            return JimsApp(obj.answer, name=obj.title) if isinstance(obj, Flow) else None
    """


@builds(Build(awaited=("authenticate",), named=True))
def jimsapi_auth_provider(settings: Settings) -> AuthProvider | None:
    """Build a provider: the way in which callers prove who they are.

    Return an object with `name` and `async authenticate(connection)`, and optionally `challenge`; or None if it is not
    configured. A provider that is configured by half must not be None: return one that admits nobody, for a server
    without any provider is public. Providers are asked in the order key, authentik, then by distribution name;
    `--auth-order` changes it. Any provider can admit; none can veto.

        @hookimpl
        def jimsapi_auth_provider(settings):
            secret = settings.get(TicketOptions).secret
            return Ticket(secret) if secret else None
    """


@builds(Build(called=("accept", "start", "finish")))
def jimsapi_thread_store(url: str, settings: Settings) -> ThreadStore | None:
    """Build the store for `--store`.

    Return a `ThreadStore` that is not open yet, or None if the URL is not of your scheme; the first answer counts.
    Raise `ValueError` with a plain message if the URL is of your scheme and faulty. Do not connect here: entering the
    store does, so that `jimsapi check` can build it without a trace.

        @hookimpl
        def jimsapi_thread_store(url, settings):
            return TapeStore(url) if url.startswith("tape:") else None
    """


@builds(Build(awaited=("resolve",)))
def jimsapi_thread_resolver(settings: Settings) -> ThreadResolver | None:
    """Build a resolver: it says which thread a message belongs to.

    Return an object with `name` and `async resolve(inbound)`, or None if not configured. `resolve` returns selectors
    (`ById`, `Latest`, `ByExternalId`, `New`), tried in order by the store in one transaction, or None to leave the
    message to the next resolver. The first that returns selectors decides alone; if none of them matches the caller
    gets 404. A resolver that raises fails the one request with 500.

        class RecentThread:
            name = "recent"

            async def resolve(self, inbound):
                if inbound.thread_id:
                    return None
                return [Latest(active_within=timedelta(minutes=30)), New()]

        @hookimpl
        def jimsapi_thread_resolver():
            return RecentThread()
    """


@builds(Build(awaited=("deliver",), named=True))
def jimsapi_event_sink(settings: Settings) -> EventSink | None:
    """Build a sink: it gets a copy of every event after it was stored.

    Return an object with `name` and `async deliver(events)`, or None if not configured. Each sink has its own bounded
    queue and gets batches in order, each of which may take 10 seconds. One that raises or is too slow loses events and
    is counted; requests go on.

        class Audit:
            name = "audit"

            async def deliver(self, events):
                await self.log.write(events)

        @hookimpl
        def jimsapi_event_sink():
            return Audit()
    """


@builds(Build(told=("on_request", "on_admission", "on_run", "on_commit")))
def jimsapi_observer(settings: Settings) -> Any | None:
    """Build an observer: it is told of requests, admissions, runs and commits.

    Return an object with any of `on_request`, `on_admission`, `on_run`, `on_commit`, each a plain function of one
    frozen record (see `Observer`), or None. They are called on the path of a request: count, and do the rest elsewhere.
    One that raises is logged and harms nothing.

        class Slow:
            def on_run(self, record):
                if record.duration > 10:
                    self.slow += 1

        @hookimpl
        def jimsapi_observer():
            return Slow()
    """


@hookspec
def jimsapi_metrics(registry: "CollectorRegistry", settings: Settings) -> None:
    """Register Prometheus collectors of your own in this app's registry.

    Called once for each app. Names should begin with your plugin's name; labels must not hold users, threads or texts.

        @hookimpl
        def jimsapi_metrics(registry):
            registry.register(TicketCollector())
    """


@hookspec
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> None:
    """Add routes.

    Called when everything else stands. Routes are private unless declared `public=True`; a route may name the `scope`
    that it needs (`chat`, `threads`). `service.chat(inbound, request.admission)` answers a message. A path and method
    that somebody claimed already stop the start. This is also the place, and the last moment, to put something around
    the pipelines, `service.wrap_pipelines(wrap)`, or around the store, by replacing `service.store`: for tracing.

        @hookimpl
        def jimsapi_routes(router, service):
            @router.get("/api/v1/motto", public=True)
            async def motto(request):
                return JSONResponse({"motto": "Ask."})
    """


@builds(Build(called=("__call__",), may_be_a_class=True))
def jimsapi_asgi_wrapper(settings: Settings) -> Callable[[ASGIApp], ASGIApp] | None:
    """Wrap the whole ASGI application, for what no other hook can do (CORS, compression, tracing).

    Return a function that takes an ASGI app and returns one, or None. Wrappers see every request, also public and
    refused ones; the first asked is the outermost.

        @hookimpl
        def jimsapi_asgi_wrapper(settings):
            return partial(GZipMiddleware, minimum_size=1000)
    """


@hookspec
def jimsapi_commands(cli: "click.Group") -> None:
    """Add subcommands to `jimsapi`.

    Called when the command line is read, before options are resolved.

        @hookimpl
        def jimsapi_commands(cli):
            @cli.command("ticket")
            def ticket():
                click.echo(secrets.token_urlsafe())
    """
