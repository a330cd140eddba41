"""The route that AG-UI's clients post to."""

from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import Response
from jimsapi.asgi.routing import Router
from jimsapi.asgi.sse import EventStreamResponse
from jimsapi.runs.identity import CHAT
from jimsapi.runs.service import RunService
from jimsapi.wire.answer import REFUSALS, with_run
from jimsapi.wire.request import read_body
from jimsapi.wire.speech import speech
from jimsapi.wire.turn import ThreadNames, begin_turn
from jimsapi_agui.events import agui_events
from jimsapi_agui.request import RunAgentInput, turn_of


def add_routes(router: Router, service: RunService, contact_header: str | None) -> None:
    """Let AG-UI's clients in; `contact_header` names the contact, if anything does."""
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

        `threadId` is the client's own name of the conversation: its first message begins a thread, the others go on
        with it. Of `messages` only the last is read, for the thread has the others. The answer is AG-UI's events:
        `RUN_STARTED`, a step for each status, the messages in pieces as they come, `CUSTOM` for each other event of the
        run once all are stored, then `RUN_FINISHED`, or `RUN_ERROR` and nothing more.

        Until a thread has taken the message a refusal is an answer in JSON with a status of its own. Hanging up does
        not stop the run; `/api/v1/runs/{id}/cancel` does, with the id in `x-run-id`.
        """
        asked = await read_body(request, service, RunAgentInput)
        run = await begin_turn(request, service, names, turn_of(asked))
        events = agui_events(request, asked, speech(request, service, run))
        return with_run(request, service, run, EventStreamResponse(events))
