"""Falcon (ASGI): orjson reads and writes JSON, and msgspec checks bodies, as its documentation's recipes show."""
# It runs where its framework is installed, which the type checker has not.
# mypy: ignore-errors

import falcon
import falcon.asgi
import falcon.media
import msgspec
import orjson
from falcon.asgi import SSEvent

from benchmarks.apps.message import Message
from benchmarks.apps.peers import EVENTS, HELLO, ROUTES, echo, may_enter


class Health:
    """The process is alive."""

    async def on_get(self, request, response):
        """Say so."""
        response.media = {"status": "ok"}


class Hello:
    """A greeting."""

    async def on_get(self, request, response):
        """Say hello."""
        response.media = HELLO


class Part:
    """Two parameters."""

    async def on_get(self, request, response, thing, part):
        """Give them back."""
        response.media = {"thing": thing, "part": part}


class Messages:
    """What people say."""

    async def on_post(self, request, response):
        """Say it back."""
        if not may_enter(request.auth):
            raise falcon.HTTPUnauthorized
        try:
            inbound = msgspec.convert(await request.get_media(), Message)
        except msgspec.ValidationError:
            raise falcon.HTTPUnprocessableEntity from None
        response.media = echo(inbound.message)


class Stream:
    """A stream of events."""

    async def on_get(self, request, response):
        """Count."""

        async def numbers():
            for number in range(EVENTS):
                yield SSEvent(text=str(number))

        response.sse = numbers()


app = falcon.asgi.App()
handler = falcon.media.JSONHandler(dumps=orjson.dumps, loads=orjson.loads)
for handlers in (app.req_options.media_handlers, app.resp_options.media_handlers):
    handlers.update({falcon.MEDIA_JSON: handler})
app.add_route("/healthz", Health())
app.add_route("/hello", Hello())
app.add_route("/messages", Messages())
app.add_route("/stream", Stream())
for number in range(ROUTES):
    app.add_route(f"/things{number}/{{thing}}/parts/{{part:int}}", Part())
