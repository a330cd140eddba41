"""The routes of the AI SDK's `DefaultChatTransport`: send a message, resume its answer, and show earlier messages."""

from collections.abc import Sequence
from functools import partial

from jimsapi.asgi import EventStreamResponse, JSONResponse, Request, Response, Router
from jimsapi.runs import CHAT, LiveRun, RunService
from jimsapi.threads import ByExternalId
from jimsapi.wire import (
    REFUSALS,
    ThreadNames,
    Turn,
    begin_turn,
    branch,
    history_of,
    note_run,
    open_run_of,
    read_body,
    spoken_items,
    spoken_run,
    stop_left,
    watch_leaving,
    with_run,
)
from jimsapi_vercel.approvals import Approval, shows_approvals
from jimsapi_vercel.chats import OpenChats
from jimsapi_vercel.chunks import HEADERS, chunks_of
from jimsapi_vercel.history import ui_messages
from jimsapi_vercel.request import ChatRequest, approvals_in, replaced_by, turn_of

_STREAM = ("The AI SDK's UI message stream, as server-sent events.", "text/event-stream")


def add_routes(router: Router, service: RunService, contact_header: str | None, *, cancels: bool) -> None:
    """Add the routes. `contact_header` is the name of the header with the contact, or None.

    `cancels`: a client that disconnects, and does not resume the answer, cancels its run.
    """
    names = ThreadNames("ai-sdk", contact_header)
    chats = OpenChats(partial(stop_left, service), service.is_read_elsewhere)

    def stream(
        request: Request, chat: str, run: LiveRun, message_id: str | None = None, answered: Sequence[Approval] = ()
    ) -> Response:
        chunks = chunks_of(
            request,
            message_id or str(run.known_as),
            spoken_items(request, service, run),
            approvals=shows_approvals(request),
            answered=answered,
        )
        if cancels:
            chunks = watch_leaving(chats.reading(chat, run, chunks), run, partial(chats.leave, chat, run))
        return with_run(request, service, run, EventStreamResponse(chunks, headers=HEADERS))

    async def stream_of_another_process(request: Request, turn: Turn) -> Response:
        """Stream an answer that another process writes, which also decides what follows if the client disconnects."""
        run_id = await open_run_of(request, service, names, turn)
        if run_id is None:
            return Response(status=204)
        request.note("run_id", str(run_id))
        chunks = chunks_of(
            request, str(run_id), spoken_run(request, service, run_id), approvals=shows_approvals(request)
        )
        response = EventStreamResponse(chunks, headers=HEADERS)
        response.raw_headers.append((b"x-run-id", str(run_id).encode()))
        return response

    @router.post(
        "/ai-sdk/chat", scope=CHAT, body=ChatRequest, tags=("ai-sdk",),
        responses={
            **REFUSALS,
            200: _STREAM,
            409: "The thread is busy, and no message waits there.",
            500: "The server failed.",
        },
    )  # fmt: skip
    async def chat(request: Request) -> Response:
        """Answer the newest message of a chat of the AI SDK.

        `id` is the client's name of the chat. The first message with an `id` begins a thread; later ones continue it.
        Only the last of `messages` is used, because the thread has the others. If the client regenerates an answer or
        edits a message, the thread is forked before that message, and the chat goes on in the fork. If the last message
        is the assistant's, it has the answers to approvals, and the answer continues that message. The answer is one UI
        message: a transient part `data-status` for each status, text parts as they arrive, and, after all events are
        stored, a part `data-TYPE` for each other event of the run.

        An error before a thread accepts the message is a JSON answer with a status of its own. If the client
        disconnects, the run is cancelled, unless the client resumes it within a few seconds, as a page does that is
        loaded again, or the server was started with `--vercel-on-disconnect continue`. Another client can cancel it by
        `/api/v1/runs/{id}/cancel` with the id in `x-run-id`.
        """
        body = await read_body(request, service, ChatRequest)
        approvals = approvals_in(body)
        turn = turn_of(body, approvals)
        chat = _chat_key(request, names, turn)
        chats.stop(chat)
        replaced = None if approvals else replaced_by(body)
        fork = None if replaced is None else await branch(request, service, names, turn, replaced)
        run = await begin_turn(request, service, names, turn, makes=fork)
        chats.add(chat, run)
        return stream(request, chat, run, body.messages[-1].id if approvals else None, approvals)

    @router.get(
        "/ai-sdk/chat/{id}/stream", scope=CHAT, tags=("ai-sdk",),
        responses={
            200: _STREAM, 204: "No answer is under way.", 401: REFUSALS[401], 403: REFUSALS[403], 503: REFUSALS[503]
        },
    )  # fmt: skip
    async def resume(request: Request) -> Response:
        """Stream the answer that is being written in a chat, from its beginning."""
        turn = Turn("", thread=request.path_params["id"])
        request.person = names.contact(request, turn)
        chat = _chat_key(request, names, turn)
        run = chats.get(chat)
        if run is None:
            return await stream_of_another_process(request, turn)
        note_run(request, run)
        return stream(request, chat, run)

    @router.get(
        "/ai-sdk/chat/{id}/messages", scope=CHAT, tags=("ai-sdk",),
        responses={401: REFUSALS[401], 403: REFUSALS[403], 503: REFUSALS[503]},
    )  # fmt: skip
    async def show_messages(request: Request) -> Response:
        """Return the messages of a chat, as `useChat` takes them, for a page that was loaded again.

        A caller that is bound to no contact needs the scope `threads`.
        """
        turn = Turn("", thread=request.path_params["id"])
        said = await history_of(request, service, names, turn)
        return JSONResponse(ui_messages(request, said, approvals=shows_approvals(request)))


def _chat_key(request: Request, names: ThreadNames, turn: Turn) -> str:
    """The key of a chat, unique among all callers: the external identifier of its thread."""
    for selector in names.selectors(request, turn, names.contact(request, turn)) or ():
        if isinstance(selector, ByExternalId):
            return selector.external_id
    raise LookupError("the chat has no name")
