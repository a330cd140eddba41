"""The route of AG-UI."""

from functools import partial

from jimsapi.asgi import EventStreamResponse, Request, Response, Router
from jimsapi.runs import CHAT, RunService
from jimsapi.wire import (
    REFUSALS,
    ThreadNames,
    Turn,
    begin_turn,
    branch,
    history_of,
    read_body,
    spoken_items,
    stop_left,
    watch_leaving,
    with_ignored,
    with_run,
)
from jimsapi_agui.events import agui_events, snapshot_events
from jimsapi_agui.history import messages_of, open_questions
from jimsapi_agui.request import RunAgentInput, listed_in, turn_of


def add_routes(router: Router, service: RunService, contact_header: str | None, *, cancels: bool) -> None:
    """Add the route. `contact_header` is the name of the header with the contact, or None.

    `cancels`: a client that disconnects cancels its run.
    """
    names = ThreadNames("ag-ui", contact_header)

    @router.post(
        "/ag-ui", scope=CHAT, body=RunAgentInput, tags=("ag-ui",),
        responses={
            **REFUSALS,
            200: ("AG-UI's events, as server-sent events.", "text/event-stream"),
            409: "The thread is busy, and no message waits there.",
            500: "The server failed.",
        },
    )  # fmt: skip
    async def run_agent(request: Request) -> Response:
        """Answer the newest message of an AG-UI client.

        `threadId` is the client's name of the conversation. The first message with a `threadId` begins a thread; later
        ones continue it. Only the last of `messages` is used, because the thread has the others. If they show that the
        client regenerates an answer or has edited a message, the thread is forked before that message, and the
        conversation goes on in the fork.

        The answer is a stream of AG-UI events: `RUN_STARTED`, a step for each status, and what the agent does as it
        happens: messages and reasoning in pieces, tool calls with their results, and sources as `CUSTOM`. After all
        events are stored, `CUSTOM` for each other event of the run, and at the end `RUN_FINISHED` with the usage of
        models, or `RUN_ERROR`.

        If `messages` is empty, the answer has the messages of the conversation as `MESSAGES_SNAPSHOT`, for a page that
        was loaded again. A caller that is bound to no contact needs the scope `threads` for that.

        An error before a thread accepts the message is a JSON answer with a status of its own. If the client
        disconnects, the run is cancelled, unless the server was started with `--agui-on-disconnect continue`. Another
        client can cancel it by `/api/v1/runs/{id}/cancel` with the id in `x-run-id`.
        """
        body = await read_body(request, service, RunAgentInput)
        if not (body.messages or body.resume):
            said = await history_of(request, service, names, Turn("", thread=body.thread_id))
            return EventStreamResponse(snapshot_events(body, messages_of(request, said), open_questions(said)))
        turn = turn_of(body)
        listed = listed_in(body, turn)
        fork = None if listed is None else await branch(request, service, names, turn, listed)
        run = await begin_turn(request, service, names, turn, makes=fork)
        events = agui_events(request, body, spoken_items(request, service, run))
        if cancels:
            events = watch_leaving(events, run, partial(stop_left, service, run))
        response = with_run(request, service, run, EventStreamResponse(events))
        return with_ignored(request, response, ["tools"] if body.tools else [])
