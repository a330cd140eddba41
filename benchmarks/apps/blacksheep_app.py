"""BlackSheep: orjson writes JSON, by a function of the app's, which its documentation advises for speed, since the one
that comes with it would decode and encode again; bodies are checked by msgspec."""
# It runs where its framework is installed, which the type checker has not.
# mypy: ignore-errors

import msgspec
import orjson
from blacksheep import Application, Content, Request, Response
from blacksheep.server.sse import ServerSentEventsResponse, TextServerSentEvent

from benchmarks.apps.message import decode
from benchmarks.apps.peers import EVENTS, HELLO, ROUTES, echo, may_enter

app = Application()


def json(value, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(status, None, Content(b"application/json", orjson.dumps(value)))


@app.router.get("/healthz")
async def healthz() -> Response:
    """The process is alive."""
    return json({"status": "ok"})


@app.router.get("/hello")
async def hello() -> Response:
    """Say hello."""
    return json(HELLO)


@app.router.post("/messages")
async def messages(request: Request) -> Response:
    """Say back what was said."""
    authorization = request.get_first_header(b"authorization")
    if not may_enter(authorization and authorization.decode()):
        return json({"detail": "Unauthorized"}, 401)
    try:
        inbound = decode(await request.read())
    except msgspec.MsgspecError:
        return json({"detail": "Unprocessable Entity"}, 422)
    return json(echo(inbound.message))


@app.router.get("/stream")
async def stream() -> Response:
    """Count."""

    async def numbers():
        for number in range(EVENTS):
            yield TextServerSentEvent(str(number))

    return ServerSentEventsResponse(numbers)


for number in range(ROUTES):

    @app.router.get(f"/things{number}/:thing/parts/:part")
    async def part(thing: str, part: int) -> Response:
        """Give the parameters back."""
        return json({"thing": thing, "part": part})
