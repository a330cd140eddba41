"""The hooks: the functions that a plugin implements.

A plugin is a module, an object or a class that an entry point of the group `jimsapi` names. It has functions with the
names below, marked `@hookimpl`. A function may omit parameters that it does not need, and must not have others. A
function that is marked `@hookimpl(optionalhook=True)` is ignored by versions of jimsapi that lack its hook.

The hooks of one plugin can share an object: `settings.shared(Visits)` returns the same object to all of them, and each
start of an app has its own. If the plugin is a class, jimsapi creates one object of it for each app, without arguments;
its methods are the hooks.

**jimsapi calls hooks when it starts, never during a request.** Hooks are plain functions. The objects that they return
may have async methods, and may be async context managers. jimsapi enters these before the first request and exits them
after the last one, in reverse order. The value that `__aenter__` returns replaces the object, unless it is None.

jimsapi calls the implementations of a hook in the order of their distributions' names, and its own last. If a hook
raises, the server does not start, and the error names the plugin, its distribution and the cause.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pluggy

from jimsapi.asgi.routing import Router
from jimsapi.asgi.types import ASGIApp
from jimsapi.plugins.options import Options, Settings
from jimsapi.plugins.protocols import AuthProvider, EventSink, FileStore, ReplicaLink, ThreadResolver, ThreadStore
from jimsapi.runs.pipeline import JimsApp, Pipeline
from jimsapi.runs.service import RunService

if TYPE_CHECKING:
    # Only annotations use these, so a start does not have to import click here.
    import click
    from prometheus_client import CollectorRegistry

PROJECT = "jimsapi"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Decorator: marks a function as the implementation of the hook of the same name."""


class Build(msgspec.Struct, frozen=True):
    """The requirements for the object that a hook returns.

    The object must have all of `async_methods` and all of `methods`, which may be async or not. If it has one of
    `optional_async_methods`, that must be async. If there are `observer_methods`, it must have one or more of them, and
    none may be async. If it is `named`, its attribute `name` must be a string that is not empty. If it has one of the
    attributes `texts`, that must be a list of strings. The object may be a class only if `may_be_a_class` is set.
    """

    async_methods: tuple[str, ...] = ()
    optional_async_methods: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    observer_methods: tuple[str, ...] = ()
    named: bool = False
    texts: tuple[str, ...] = ()
    may_be_a_class: bool = False


BUILDS: dict[str, Build] = {}
"""The requirements, by hook. jimsapi enters the store first, and then the other objects in the order of this dict. The
plugin that asks for a file store enters it."""


STORE_METHODS = tuple(name for name, value in vars(ThreadStore).items() if callable(value) and not name.startswith("_"))
"""The methods of every store."""

Spec = TypeVar("Spec", bound=Callable[..., Any])


def builds(build: Build) -> Callable[[Spec], Spec]:
    """Decorator: marks the specification of a hook that returns an object. `build` has the object's requirements."""

    def mark(function: Spec) -> Spec:
        BUILDS[function.__name__] = build
        return hookspec(function)

    return mark


@hookspec
def jimsapi_options() -> type[Options]:  # type: ignore[empty-body]
    """Declare options. Each one is a flag, a `JIMS_*` variable and a keyword of `create_api`.

    Called before every other hook, because the other hooks get the values. Return one `Options` class; None is not
    allowed. If two plugins declare the same option, the server does not start.

    The other hooks read the values with `settings.get(TicketOptions)`.

        class TicketOptions(Options, prefix="ticket"):
            secret: Secret | None = option(help="Shared ticket.")

        @hookimpl
        def jimsapi_options():
            return TicketOptions
    """


@hookspec
def jimsapi_load_app(reference: str, settings: Settings) -> Any | None:
    """Load the app that `--app` names, for references in a format of your own.

    Called once, with the text of `--app`. jimsapi does not call it if `create_api` was given an app object. Return

    - the app: a `JimsApp`, an async pipeline, a function or coroutine that returns one of these, or any object that an
      implementation of `jimsapi_adapt_app` recognises;
    - None if the reference is not in your format. jimsapi then calls the next plugin, and at last its own loader, which
      imports `module:attribute`. The hook is called before the app's module is imported, so it may prepare that import,
      for example set a variable that a library reads while it is imported.

    If the reference is in your format and you cannot load it, raise `ValueError`. The operator reads the message.

        @hookimpl
        def jimsapi_load_app(reference):
            return load_flow(reference) if reference.endswith(".flow") else None
    """


@hookspec
def jimsapi_adapt_app(obj: Any, settings: Settings) -> JimsApp | None:
    """Wrap an app object of another framework in a `JimsApp`.

    Called with the object that was loaded. If no plugin recognises that object and it is a function or a coroutine,
    jimsapi calls or awaits it, and then calls this hook again with the result. Return a `JimsApp`, or None if you do
    not recognise the object. jimsapi uses the first `JimsApp` that a plugin returns. The `JimsApp` may have `store` and
    `context_events`; options that the operator set override them. If `obj` is an async context manager and the
    `JimsApp` has no `lifespan`, jimsapi enters `obj` at start, and the value of `__aenter__` is `ctx.resources`.

        @hookimpl
        def jimsapi_adapt_app(obj):
            return JimsApp(obj.answer, name=obj.title) if isinstance(obj, Flow) else None
    """


@builds(
    Build(
        async_methods=("authenticate",),
        optional_async_methods=("readmit",),
        named=True,
        texts=("authorization_servers", "oauth_scopes"),
    )
)
def jimsapi_auth_provider(settings: Settings) -> AuthProvider | None:
    """Build an auth provider, which authenticates callers. `AuthProvider` documents its methods.

    Return an object with `name` and `async authenticate(connection)`, and optionally `challenge`, `security_scheme`,
    `authorization_servers`, `oauth_scopes`, `async readmit(connection, identity)` and `async ping()`. Return None if
    the provider is not configured. If it is configured incompletely, return a provider that rejects every caller: a
    server without any provider is public.

    For each request, jimsapi calls the providers until one returns an `Identity`. If one rejects the request, the
    providers after it can still admit it. The order is key, authentik, then the others by distribution name;
    `--auth-order` changes it.

        @hookimpl
        def jimsapi_auth_provider(settings):
            secret = settings.get(TicketOptions).secret
            return Ticket(secret) if secret else None
    """


@builds(Build(methods=STORE_METHODS))
def jimsapi_thread_store(url: str, settings: Settings) -> ThreadStore | None:
    """Build the thread store for the URL of `--store`.

    Return a `ThreadStore` that is not open yet, or None if the URL does not have your scheme. jimsapi uses the first
    store that a plugin returns. If the URL has your scheme and is invalid, raise `ValueError`; the operator reads the
    message. Do not open files or connections in the hook, but in the store's `__aenter__`: `jimsapi check` builds the
    store and must not change anything.

        @hookimpl
        def jimsapi_thread_store(url, settings):
            return TapeStore(url) if url.startswith("tape:") else None
    """


@builds(Build(async_methods=("put", "find", "read", "files", "delete", "delete_contact"), named=True))
def jimsapi_file_store(url: str, settings: Settings) -> FileStore | None:
    """Build the file store for the URL of `--files-store`, an option of the plugin `jimsapi-files`.

    Called when another plugin calls `build_file_store` of `jimsapi.plugins`; jimsapi itself does not call it. Return a
    `FileStore` that is not open yet, or None if the URL does not have your scheme. The first file store that a plugin
    returns is used. If the URL has your scheme and is invalid, raise `ValueError`; the operator reads the message. Open
    files and connections in the store's `__aenter__`, not in the hook: `jimsapi check` and `jimsapi keys new` call the
    hook and must not change anything.

    The plugin that serves the files checks who may see them, and the sizes, types and names of files. Your store keeps
    the files of contacts apart, and keeps each contact's quota.

        @hookimpl
        def jimsapi_file_store(url):
            return BucketStore(url) if url.startswith("bucket:") else None
    """


@builds(Build(async_methods=("resolve",), texts=("headers",)))
def jimsapi_thread_resolver(settings: Settings) -> ThreadResolver | None:
    """Build a resolver, which selects the thread of a message.

    Return an object with `name` and `async resolve(inbound)`, or None if the resolver is not configured. For each
    message, jimsapi calls the resolvers until one returns selectors (`ById`, `Latest`, `ByExternalId`, `New`). Return
    None from `resolve` to leave the message to the next resolver; the last one is jimsapi's own.

    `resolve(inbound, context)`, where `context` has no default, also gets a `ResolverContext`: the caller's identity,
    the request headers that the attribute `headers` of the resolver names, and the contact's last thread.

    The store tries the selectors in order, in one transaction, and uses the first that matches. If none matches, the
    caller gets 404; jimsapi calls no further resolver. If `resolve` raises, the caller gets 500.

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


@builds(Build(async_methods=("deliver",), named=True))
def jimsapi_event_sink(settings: Settings) -> EventSink | None:
    """Build a sink, which receives a copy of every event after the event is stored.

    Return an object with `name` and `async deliver(events)`, or None if the sink is not configured. `deliver` gets the
    events of a thread in order, in batches, and has 10 seconds for each batch. Answers never wait for a sink. Each
    event is a `SinkEvent`, which has `contact_id` and `run_id`.

    There are two kinds of sinks:

    - A best-effort sink has a bounded queue of its own. If `deliver` raises or takes longer, jimsapi logs and counts
      the batch as failed and does not send it again. If the queue is full, jimsapi drops and counts new events.
    - A durable sink has an attribute `durable = True`. It gets every event at least once, also after an outage or the
      end of the process, since the store remembers what it has received. If `deliver` raises or takes longer, it gets
      the same events again later, perhaps fewer at a time. If it raises `EventRefused`, its events become dead
      letters, which operators can list, replay and drop. An event that makes it fail while others do not becomes one
      as well. One process at a time works for each durable sink. Its `name` is its identity in the store: with another
      name it is another sink, which begins with new events.

        class Audit:
            name = "audit"

            async def deliver(self, events):
                await self.log.write(events)

        @hookimpl
        def jimsapi_event_sink():
            return Audit()
    """


@builds(Build(async_methods=("serve", "ask"), optional_async_methods=("listen", "publish"), named=True))
def jimsapi_replica_link(settings: Settings) -> ReplicaLink | None:
    """Build a link between replicas, by which every replica shows the live stream of every run.

    Replicas are processes that have the same store, on any machines. Without a link, the stream of a run that another
    replica works on has what is stored, and no statuses or pieces of messages. jimsapi asks by the link when a client
    reads such a stream, so nothing is sent while nobody reads. The workers of one command (`--workers`) need no link.

    Return an object with `name`, `async serve(answer)` and `async ask(question, replica)`, or None if the link is not
    configured. jimsapi calls `serve` once at start, before the first `ask`. The link then answers the questions of
    other replicas with `await answer(question)`, which returns the bytes to send, or None: then it sends nothing. An
    answer may take 15 seconds, and meanwhile the link answers other questions. `ask` sends a question to all other
    replicas, or to the `replica` that an earlier call has named. It returns the first answer and the name of the
    replica that gave it, or None if none can be reached. `ReplicaLink` documents both.

    jimsapi makes questions of at most 64 bytes, and answers of 1 byte to 512 KiB. The link may lose one: the reader
    asks again for what follows the last item that it has. If `ask` raises or takes too long, jimsapi reads the store,
    and logs the first error of several. Nobody else may ask or answer, since answers have what people write.

    If the link also has `async listen(receive)` and `async publish(notice)`, replicas count rate limits together.
    `publish` sends up to 64 KiB to all other replicas, or drops it if none can be reached. There `receive(notice)` is
    called, once at most. `NoticeLink` documents both.

        class Post:
            name = "post"

            async def serve(self, answer):
                await self.office.on_letter(self.address, answer)

            async def ask(self, question, replica):
                letter = await self.office.send(question, to=replica or "everyone")
                return letter.text, letter.sender

        @hookimpl
        def jimsapi_replica_link():
            return Post()
    """


@builds(Build(observer_methods=("on_request", "on_admission", "on_run", "on_commit")))
def jimsapi_observer(settings: Settings) -> Any | None:
    """Build an observer, which receives records of requests, admissions, runs and commits.

    Return an object with one or more of the methods `on_request`, `on_admission`, `on_run` and `on_commit`, or None.
    Each is a plain function with one parameter, a frozen record; `Observer` documents when jimsapi calls it. Requests
    wait for these functions, so they should only count or enqueue. If one raises, jimsapi logs its first error; the
    request is not affected.

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
    """Register Prometheus collectors in the registry of this app.

    Called once for each app, after the objects of the other hooks are built and before they are entered. Metric names
    should begin with your plugin's name. Labels must not contain users, threads or message texts. If the registry
    already has a metric of that name, it raises, and the server does not start.

        @hookimpl
        def jimsapi_metrics(registry):
            registry.register(TicketCollector())
    """


@hookspec
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> AbstractAsyncContextManager[Any] | None:
    """Add routes to the app. Return an async context manager if the routes need one, for example a database.

    Called after the objects of the other hooks are entered. A route is private unless it is declared `public=True`, and
    may name the `scope` that it requires: `chat`, `threads`, or one of your own. `service.chat(inbound,
    request.admission)` answers a message. If another route has the same path and method, the server does not start.

    `router.security_schemes` has the Security Scheme Objects (OpenAPI 3.1) of the configured auth providers by their
    names, for protocols that describe how callers send credentials. If clients of your protocol look for authorization
    servers, as those of MCP do, declare the route with `resource=True`: it is then an OAuth protected resource of its
    own (RFC 9728).

    `jimsapi keys new --scope` also calls this hook, with a service that answers nothing, to learn the scopes of the
    routes. So open nothing here: return an async context manager that opens it.

        @hookimpl
        def jimsapi_routes(router, service):
            @router.get("/api/v1/motto", public=True)
            async def motto(request):
                return JSONResponse({"motto": "Ask."})
    """


@builds(Build(methods=("__call__",), may_be_a_class=True))
def jimsapi_asgi_wrapper(settings: Settings) -> Callable[[ASGIApp], ASGIApp] | None:
    """Wrap the whole ASGI app, for features that no other hook offers, such as compression.

    Return a function that takes an ASGI app and returns an ASGI app, or None. The wrapper sees every request, including
    those to public routes and those that jimsapi rejects. The wrapper of the first plugin is the outermost.

        @hookimpl
        def jimsapi_asgi_wrapper(settings):
            return partial(GZipMiddleware, minimum_size=1000)
    """


@builds(Build(methods=("__call__",), may_be_a_class=True))
def jimsapi_pipeline_wrapper(settings: Settings) -> Callable[[Pipeline, str], Pipeline] | None:
    """Wrap each pipeline, for example in a tracing span.

    Return a function that takes a pipeline and its name in metrics and returns a pipeline, or None. It is called at
    start, once for each pipeline of the app. The pipeline that it returns must raise what the wrapped one raises. The
    wrapper of the first plugin is the outermost. A wrapper that needs the tool calls and events of a run gets them with
    `ctx.observe`.

        @hookimpl
        def jimsapi_pipeline_wrapper():
            def wrap(pipeline, name):
                async def timed(ctx):
                    with stopwatch(name):
                        await pipeline(ctx)
                return timed
            return wrap
    """


@builds(Build(methods=("__call__",), may_be_a_class=True))
def jimsapi_store_wrapper(settings: Settings) -> Callable[[ThreadStore], ThreadStore] | None:
    """Wrap the store, for example to trace its calls.

    Return a function that takes a `ThreadStore` and returns one, or None. It is called at start, after the store is
    entered. The store that it returns must behave as `ThreadStore` documents: answers are sent after `finish`, so a
    wrapper that waits delays them. The wrapper of the first plugin is the outermost.

        class Traced:
            def __init__(self, store):
                self._store = store

            def __getattr__(self, name):
                return getattr(self._store, name)

            async def finish(self, run_id, owner, outcome):
                with span("finish"):
                    return await self._store.finish(run_id, owner, outcome)

        @hookimpl
        def jimsapi_store_wrapper():
            return Traced
    """


@hookspec
def jimsapi_commands(cli: "click.Group") -> None:
    """Add subcommands to the command `jimsapi`.

    Called when the command line is built. The options have no values yet, so the hook gets no `settings`. A command
    gets them when it runs, if its function is decorated with `pass_settings` of `jimsapi.plugins`.

        @hookimpl
        def jimsapi_commands(cli):
            @cli.command("ticket")
            @pass_settings
            def ticket(settings):
                click.echo(secrets.token_urlsafe(settings.get(TicketOptions).bytes))
    """
