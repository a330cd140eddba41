"""The routes of `/deep-chat`: complete answers, streams, and WebSockets."""

from collections.abc import Sequence
from functools import partial

import msgspec

from jimsapi.asgi import EventStreamResponse, JSONResponse, Request, Response, Router, WebSocket
from jimsapi.runs import CHAT, RunService
from jimsapi.wire import (
    EVENT_STREAM,
    REFUSALS,
    ThreadNames,
    Turn,
    answer_of,
    as_one_text,
    begin_turn,
    history_of,
    read_json,
    reading_body,
    refuse_foreign_form,
    reworded,
    spoken_items,
    stop_left,
    watch_leaving,
    with_run,
)
from jimsapi_deepchat.answers import answer_body, error_body, events, history_body
from jimsapi_deepchat.conversation import Conversation
from jimsapi_deepchat.requests import DeepChatRequest, new_turn, read_form_turn, read_value

PATH = "/deep-chat"
SUBPROTOCOL = "deep-chat"
"""Pages that send a token as a subprotocol must also offer this one: a browser fails if the server selects none."""


class HistoryQuery(msgspec.Struct):
    """The conversation, by the names that requests have in their body."""

    chat_id: str | None = None
    contact_id: str | None = None


class DeepChatFile(msgspec.Struct):
    """A file of an answer: its URL, its name, and `image`, `audio` or `any`."""

    src: str
    name: str
    type: str


class DeepChatAnswer(msgspec.Struct):
    """An answer in the format of Deep Chat. `html` has buttons, if a person may choose.

    An answer of files alone has no `text`.
    """

    text: str | msgspec.UnsetType = msgspec.UNSET
    html: str | msgspec.UnsetType = msgspec.UNSET
    files: list[DeepChatFile] | msgspec.UnsetType = msgspec.UNSET


async def _read_turn(request: Request, service: RunService, origins: Sequence[str]) -> tuple[Turn, bool]:
    """Return the newest message, and whether the body asks for a stream."""
    if not (request.headers.get("content-type") or "").startswith("multipart/"):
        body = read_value(await read_json(request, service))
        return new_turn(body), bool(body.stream)
    refuse_foreign_form(request, origins)
    with reading_body(service):
        return await read_form_turn(request)


def add_routes(
    router: Router, service: RunService, names: ThreadNames, *, cancels: bool, origins: Sequence[str]
) -> None:
    """Add the routes for requests and for WebSockets, which have the same path.

    `cancels`: a client that disconnects from a request cancels its run. `origins` are the web origins whose pages may
    send forms, besides those of this host.
    """

    @router.post(
        PATH, scope=CHAT, body=DeepChatRequest, response=DeepChatAnswer, tags=("deep chat",),
        reword=partial(reworded, error_body), cancel_on_disconnect=cancels,
        responses={
            200: ("The answer, or with `stream` its pieces.", EVENT_STREAM),
            **REFUSALS,
            409: "The run was cancelled, or the thread is busy and no message waits there.",
            500: "The pipeline failed; the message is stored.",
            504: "The pipeline took too long; the message is stored.",
        },
    )  # fmt: skip
    async def answer(request: Request) -> Response:
        """Answer the newest message of a conversation, in the format of Deep Chat.

        The answer is `{"text"}`, and `files` if the pipeline sent some. With `stream: true`, or if the client accepts
        event streams, it is a stream of server-sent events, each with the next piece as `{"text"}`. An error is
        `{"error"}`. A message with files is a form.
        """
        turn, streamed = await _read_turn(request, service, origins)
        streamed = streamed or (request.headers.get("accept") or "").startswith(EVENT_STREAM)
        run = await begin_turn(request, service, names, turn, watched=streamed)
        on_left = partial(stop_left, service, run) if cancels else None
        if not streamed:
            body = answer_body(request, await answer_of(request, run, on_left))
            return with_run(request, service, run, JSONResponse(body))
        chunks = events(request, as_one_text(spoken_items(request, service, run)))
        stream = EventStreamResponse(chunks if on_left is None else watch_leaving(chunks, run, on_left))
        return with_run(request, service, run, stream)

    @router.get(
        f"{PATH}/history", scope=CHAT, query=HistoryQuery, tags=("deep chat",), reword=partial(reworded, error_body),
        responses={401: REFUSALS[401], 403: REFUSALS[403], 503: REFUSALS[503]},
    )  # fmt: skip
    async def show_history(request: Request) -> Response:
        """Return the messages of a conversation, as the component takes them, for a page that was loaded again.

        A caller that is bound to no contact needs the scope `threads`.
        """
        query = request.typed_query(HistoryQuery)
        turn = Turn("", thread=query.chat_id, user=query.contact_id)
        return JSONResponse(history_body(request, await history_of(request, service, names, turn)))

    @router.websocket(PATH, scope=CHAT, subprotocols=(SUBPROTOCOL,), first_frame=True, tags=("deep chat",))
    async def converse(ws: WebSocket) -> None:
        """Answer messages one after another.

        A frame is the body of a request, or a message as plain text. Its answer is `{"text"}` or `{"error"}`. If it has
        no name of a conversation, all messages of one WebSocket belong to one conversation.
        """
        await ws.accept()
        await Conversation(ws, service, names).run()
