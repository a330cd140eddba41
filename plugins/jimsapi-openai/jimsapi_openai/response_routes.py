"""The routes of responses: create, retrieve, resume, cancel and delete them, and list their input."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, cast

import msgspec
import orjson

from jimsapi.asgi import EventStreamResponse, HTTPError, JSONResponse, Request, Response, Router, convert_body
from jimsapi.runs import CHAT, THREADS, Admission, LiveRun, RunEnded, Runs, RunService, ThreadService
from jimsapi.threads import DomainError, EventRow, NewEvent, StoredRun, id_beside, row_id
from jimsapi.wire import (
    EVENT_STREAM,
    REFUSALS,
    SpokenItem,
    UserSaid,
    answer_of,
    error_answer,
    event_data_json,
    read_json,
    said,
    spoken_items,
    spoken_run,
    stop_left,
    stored_items,
    watch_leaving,
    with_ignored,
    with_run,
)
from jimsapi_openai.answers import forbid_retries, in_error_form
from jimsapi_openai.conversations import BESIDE, ListQuery, last_event_of, page_of
from jimsapi_openai.ids import conversation_id, response_id
from jimsapi_openai.inputs import MOST_NAMED, WITHOUT_EFFECT, ResponseRequest, check_count, check_fields, read_input
from jimsapi_openai.items import Speech, speech_of, user_item
from jimsapi_openai.placement import Placement
from jimsapi_openai.requests import is_of_open_webui, without_effect
from jimsapi_openai.responses import Head, stream_of
from jimsapi_openai.retries import Retries, key_of

MOST_EVENTS = 2**53
"""The greatest number of an event in a stream: JSON's numbers are exact up to it (RFC 8259, section 6)."""

_LOOKUP = {status: REFUSALS[status] for status in (401, 403, 503)} | {404: "There is no such response."}


class RetrieveQuery(msgspec.Struct):
    """How to retrieve a response: as a stream, after the event with the number `starting_after`, or whole."""

    stream: bool = False
    starting_after: Annotated[int, msgspec.Meta(ge=0, le=MOST_EVENTS)] | None = None


def add_response_routes(
    router: Router, service: RunService, placement: Placement, model: str, retries: Retries | None, *, cancels: bool
) -> None:
    """Add the routes. `model` is the identifier of the model. `cancels`: a client that disconnects cancels its run."""
    runs = Runs(service)
    options: dict[str, Any] = {"tags": ("openai",), "reword": in_error_form}

    @router.post(
        "/v1/responses", scope=CHAT, body=ResponseRequest, response=dict[str, Any],
        cancel_on_disconnect=cancels, **options,
        responses={
            200: ("A `response`, or with `stream` the events of one.", EVENT_STREAM),
            **REFUSALS,
            404: "There is no such conversation, response or request for approval.",
            409: "The previous response or the thread is busy, or the run was cancelled.",
            500: "The pipeline failed; the message is stored.",
            504: "The pipeline took too long; the message is stored.",
        },
    )  # fmt: skip
    async def create(request: Request) -> Response:
        """Answer a message, in the format of OpenAI's Responses API.

        The message continues the thread of `conversation` or of `previous_response_id`. If another message followed
        that response, it continues a fork. Without both it begins a thread, with the earlier items of `input`. An
        `mcp_approval_response` answers a question of the pipeline. With `store` false nothing is stored.

        Instructions, tools and parameters of the model are ignored, because the pipeline decides these. The header
        `x-ignored-fields` of the answer names those fields of the request.
        """
        value = await read_json(request, service)
        check_count(value)
        body = convert_body(value, ResponseRequest)
        check_fields(body)
        said = read_input(body.input)
        key = await key_of(request, retries)
        run, ignored = await placement.begin(request, body, said, key)
        response = await answer(request, body, run)
        forbid_retries(response)
        fields = [*without_effect(value, WITHOUT_EFFECT), *ignored[:MOST_NAMED]]
        return with_ignored(request, with_run(request, service, run, response), fields)

    async def answer(request: Request, body: ResponseRequest, run: LiveRun) -> Response:
        on_left = partial(stop_left, service, run) if cancels and not body.background else None
        head = await head_of(request, body, run)
        if body.stream:
            speech = Speech(head.thread_id, as_functions=is_of_open_webui(request))
            events = stream_of(request, head, speech, spoken_items(request, service, run))
            return EventStreamResponse(events if on_left is None else watch_leaving(events, run, on_left))
        if body.background:
            if run.known_as is run.run_id:
                return JSONResponse(head.begun(run))
            earlier = await runs.run(_admission(request), run.known_as)
            return await whole(request, await stored_head(request, earlier))
        try:
            result = await answer_of(request, run, on_left)
        except DomainError as fault:
            return in_error_form(error_answer(request, fault))
        items = stored_items(result.events)
        speech = speech_of(head.thread_id, items, as_functions=is_of_open_webui(request))
        return JSONResponse(head.completed(speech))

    async def head_of(request: Request, body: ResponseRequest, run: LiveRun) -> Head:
        thread_id = None if run.thread is None or not run.in_thread else run.thread.thread_id
        if run.thread is None:  # an earlier request was the same
            thread_id = (await runs.run(_admission(request), run.known_as)).thread_id
        return Head(
            run.known_as,
            thread_id,
            model,
            run.inbound.message,
            body.metadata or {},
            background=bool(body.background),
            previous_response_id=body.previous_response_id,
            stored=run.in_thread,
        )

    async def whole(request: Request, head: Head) -> Response:
        """The response as it is stored now."""
        run = await runs.run(_admission(request), head.run_id)
        speech = speech_of(run.thread_id, _items(run), as_functions=is_of_open_webui(request))
        return JSONResponse(head.of_stored(run, speech))

    async def stored_head(request: Request, run: StoredRun) -> Head:
        """The head of a stored run, with what the thread has of its message."""
        rows = await message_rows(run)
        metadata = [_data(row) for row in rows if row.event_type == "message.metadata"]
        messages = [one.text for one in said(rows) if isinstance(one, UserSaid)]
        named = metadata[0].get("metadata") if metadata else None
        return Head(
            run.run_id,
            run.thread_id,
            model,
            "".join(messages),
            named if isinstance(named, dict) else {},
            ended_at=None if run.finished_at is None else int(run.finished_at.timestamp()),
        )

    async def message_rows(run: StoredRun) -> list[EventRow]:
        """The message of a run, and the events beside it. A queued run has none in its thread."""
        ids = [*(id_beside(run.message_id, number) for number in range(1, BESIDE + 1)), run.message_id]
        found = await service.store.events_by_id(run.thread_id, ids)
        return [row for row in found if row.event_type.startswith("message.") or row_id(row) == run.message_id]

    @router.get(
        "/v1/responses/{id}", query=RetrieveQuery, response=dict[str, Any], **options,
        responses={200: ("A `response`, or with `stream` the events of one.", EVENT_STREAM), **_LOOKUP},
    )  # fmt: skip
    async def retrieve(request: Request) -> Response:
        """Retrieve a response, or with `stream` its events, from the beginning or after the number `starting_after`.

        The events are available for a minute after the response has ended. Later the stream has whole messages only,
        and after `starting_after` only the end.
        """
        query = request.typed_query(RetrieveQuery)
        run = await placement.stored_run(request, request.path_params["id"])
        head = await stored_head(request, run)
        if not query.stream:
            return await whole(request, head)
        speech = Speech(run.thread_id, as_functions=is_of_open_webui(request))
        after = -1 if query.starting_after is None else query.starting_after
        events: AsyncGenerator[bytes, None] = stream_of(
            request, head, speech, spoken_run(request, service, run.run_id), after
        )
        return EventStreamResponse(events)

    @router.post("/v1/responses/{id}/cancel", **options, responses=_LOOKUP)
    async def cancel(request: Request) -> Response:
        """Cancel a response that is in progress. One that has ended stays as it is."""
        run = await placement.stored_run(request, request.path_params["id"])
        with suppress(RunEnded):
            await runs.cancel(_admission(request), run.run_id)
        run = await runs.run(_admission(request), run.run_id)
        return await whole(request, await stored_head(request, run))

    @router.delete(
        "/v1/responses/{id}", scope=THREADS, **options,
        responses={**_LOOKUP, 409: "The response is in a conversation with others."},
    )  # fmt: skip
    async def delete(request: Request) -> Response:
        """Delete a response with its message, if they are all of their thread. It is cancelled if it is in progress.

        A response in a conversation with others is refused, because events of a thread are never removed one by one.
        """
        run = await placement.stored_run(request, request.path_params["id"])
        _, is_newest = await last_event_of(service, run)
        if not (run.created_new_thread and is_newest):
            named = conversation_id(run.thread_id)
            text = f"The response belongs to a conversation, which keeps its items: delete the conversation {named!r}"
            raise HTTPError(409, text)
        await ThreadService(service).delete_thread(_admission(request).identity, run.thread_id)
        return JSONResponse({"id": response_id(run.run_id), "object": "response", "deleted": True})

    @router.get("/v1/responses/{id}/input_items", query=ListQuery, **options, responses=_LOOKUP)
    async def list_input(request: Request) -> Response:
        """List what a response answers: its message. The earlier items are those of its conversation."""
        query = request.typed_query(ListQuery)
        run = await placement.stored_run(request, request.path_params["id"])
        rows = await message_rows(run)
        items = [user_item(request, one) for one in said(rows) if isinstance(one, UserSaid)]
        return JSONResponse(page_of(items, query.limit, query.after))


def _items(run: StoredRun) -> list[SpokenItem]:
    """Return what a stored run said and did."""
    events = [NewEvent(event.event_id, event.event_type, event_data_json(event.event_data)) for event in run.events]
    return stored_items(events)


def _data(row: EventRow) -> dict[str, Any]:
    data = orjson.loads(event_data_json(row.data))
    return data if isinstance(data, dict) else {}


def _admission(request: Request) -> Admission:
    return cast(Admission, request.admission)
