"""Wrappers of pipelines, of the store and of the ASGI app in many versions: some keep the contracts, some do not.

The tests install this module as the distribution `acme-watch`; the options `--watch-pipeline`, `--watch-store` and
`--watch-asgi` choose the classes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Self

from jimsapi import Options, Secret, ThreadContext, hookimpl, option
from jimsapi.asgi import ASGIApp, Receive, Scope, Send
from jimsapi.plugins import Settings
from jimsapi.runs import Pipeline
from jimsapi.threads import StoreUnavailable, ThreadStore

logger = logging.getLogger("acme_watch")


class WatchOptions(Options, prefix="watch"):
    token: Secret | None = option(help="What the place asks for.")
    pipeline: str | None = option(help="The class that wraps pipelines.")
    store: str | None = option(help="The class that wraps the store.")
    asgi: str | None = option(help="The class that wraps the ASGI app.")


class Sound:
    """Wraps pipelines, the store and the ASGI app, and changes nothing."""

    def __init__(self, token: Secret | None) -> None:
        self.token = token

    def __call__(self, wrapped: Any, name: str | None = None) -> Any:
        if name is not None:
            return self.pipeline(wrapped)
        return SoundStore(wrapped) if hasattr(wrapped, "accept") else OfAsgi.of(wrapped)

    def pipeline(self, pipeline: Pipeline) -> Pipeline:
        async def watched(ctx: ThreadContext) -> None:
            await self.call(pipeline, ctx)

        return watched

    async def call(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        await pipeline(ctx)


class AlwaysThere(Sound):
    """It is built whether it is configured or not."""


class IsNotAsync(Sound):
    def pipeline(self, pipeline: Pipeline) -> Pipeline:
        return lambda ctx: pipeline(ctx)


class Yields(Sound):
    """Returns an async generator, which is a pipeline too."""

    def pipeline(self, pipeline: Pipeline) -> Any:
        async def watched(ctx: ThreadContext) -> AsyncIterator[str]:
            await self.call(pipeline, ctx)
            pieces: tuple[str, ...] = ()
            for piece in pieces:
                yield piece

        return watched


class NeedsAFunction(Sound):
    """Reads an attribute that only functions have, although an object may be a pipeline."""

    def pipeline(self, pipeline: Any) -> Pipeline:
        self.wrapped_name = pipeline.__name__
        return super().pipeline(pipeline)


class CallsTwice(Sound):
    async def call(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        await pipeline(ctx)
        await pipeline(ctx)


class AddsAMessage(Sound):
    async def call(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        await pipeline(ctx)
        ctx.send_message("watched")


class SwallowsErrors(Sound):
    async def call(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        with suppress(Exception):
            await pipeline(ctx)


class RaisesErrorsOfItsOwn(Sound):
    async def call(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        try:
            await pipeline(ctx)
        except Exception as error:
            raise RuntimeError("the pipeline failed") from error


class SwallowsCancellation(Sound):
    async def call(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        with suppress(asyncio.CancelledError):
            await pipeline(ctx)


class RemembersTheContext(Sound):
    async def call(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        self.context = ctx
        await asyncio.sleep(0)
        await pipeline(self.context)


class RemembersThePipeline(Sound):
    def pipeline(self, pipeline: Pipeline) -> Pipeline:
        self.wrapped = pipeline
        return super().pipeline(pipeline)

    async def call(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        await self.wrapped(ctx)


class LogsMessages(Sound):
    async def call(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        logger.debug("the pipeline answers %s", ctx.history)
        await pipeline(ctx)


class ShowsTheToken(Sound):
    def __repr__(self) -> str:
        return f"<watch {self.token.reveal() if self.token else None}>"


class StopsAfterAFailure(Sound):
    failed = False

    async def call(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        if self.failed:
            raise RuntimeError("no more")
        try:
            await pipeline(ctx)
        except Exception:
            self.failed = True
            raise


class StartsOnce(Sound):
    started = False

    async def __aenter__(self) -> Self:
        assert not StartsOnce.started, "it runs already"
        StartsOnce.started = True
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class SoundStore:
    def __init__(self, store: ThreadStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class OfStores(Sound):
    """Wraps the store with a class of its own."""

    Wrapper: Callable[[ThreadStore], Any]

    def __call__(self, wrapped: Any, name: str | None = None) -> Any:
        return type(self).Wrapper(wrapped)


class PurgesWhenItCan(OfStores):
    class Wrapper(SoundStore):
        async def purge(self, older_than: Any) -> int:
            with suppress(StoreUnavailable):
                return await self.store.purge(older_than)
            return 0


class AcceptsInAnyCase(OfStores):
    class Wrapper(SoundStore):
        async def accept(self, plan: Any) -> Any:
            with suppress(asyncio.CancelledError):
                return await self.store.accept(plan)


class LogsPlans(OfStores):
    class Wrapper(SoundStore):
        async def accept(self, plan: Any) -> Any:
            logger.debug("accepting %s", plan)
            return await self.store.accept(plan)


class KeepsContacts(OfStores):
    class Wrapper(SoundStore):
        async def delete_contact(self, contact_id: str) -> list[Any]:
            return []


class HidesTheName(OfStores):
    class Wrapper(SoundStore):
        name = ""


class LimitsPages(OfStores):
    class Wrapper(SoundStore):
        async def events(self, thread_id: Any, acting_for: Any, limit: int, after: Any) -> Any:
            return await self.store.events(thread_id, acting_for, min(limit, 1), None)


class OfAsgi(Sound):
    """Wraps the ASGI app with its method `serve`."""

    def __call__(self, wrapped: Any, name: str | None = None) -> Any:
        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            await self.serve(wrapped, scope, receive, send)

        return watched

    @classmethod
    def of(cls, app: ASGIApp) -> ASGIApp:
        return cls(None)(app)  # type: ignore[no-any-return]

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)


class ChangesTheStatus(OfAsgi):
    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_ok(message: Any) -> None:
            await send({**message, "status": 200} if message["type"] == "http.response.start" else message)

        await app(scope, receive, send_ok)


class ReadsOnePart(OfAsgi):
    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_one() -> Any:
            return {**await receive(), "more_body": False}

        await app(scope, receive_one, send)


class HoldsAnswersBack(OfAsgi):
    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Any] = []

        async def hold(message: Any) -> None:
            held.append(message)

        await app(scope, receive, hold)
        for message in held:
            await send(message)


class KnowsHttpOnly(OfAsgi):
    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["method"]
        await app(scope, receive, send)


class RemembersTheRequest(OfAsgi):
    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self.receive = receive
        await asyncio.sleep(0)
        await app(scope, self.receive, send)


class SwallowsWhatIsRaised(OfAsgi):
    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ValueError):
            await app(scope, receive, send)


class LogsBodies(OfAsgi):
    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_logged() -> Any:
            message = await receive()
            logger.debug("received %s", message)
            return message

        await app(scope, receive_logged, send)


@hookimpl
def jimsapi_options() -> type[Options]:
    return WatchOptions


def build(options: WatchOptions, name: str | None) -> Any:
    if name is None:
        return None
    version = globals()[name]
    return version(options.token) if options.token or version is AlwaysThere else None


@hookimpl
def jimsapi_pipeline_wrapper(settings: Settings) -> Any:
    options = settings.get(WatchOptions)
    return build(options, options.pipeline)


@hookimpl
def jimsapi_store_wrapper(settings: Settings) -> Any:
    options = settings.get(WatchOptions)
    return build(options, options.store)


@hookimpl
def jimsapi_asgi_wrapper(settings: Settings) -> Any:
    options = settings.get(WatchOptions)
    return build(options, options.asgi)
