"""The routes of conversations, which are threads, and of their items, which are events."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi import HTTPError, JSONResponse, Request, Response, Router, convert_body
from jimsapi.runs import (
    CHAT,
    THREADS,
    Admission,
    RunService,
    ScopeMissing,
    ThreadService,
    thread_metadata,
)
from jimsapi.threads import Event, IdentifierTaken, KeyMismatch, ThreadChange, ThreadRecord, derived_id
from jimsapi.wire import REFUSALS, ThreadNames, Turn, event_data_json, read_json
from jimsapi_openai.answers import in_error_form
from jimsapi_openai.conversations import ConversationItems, ListQuery, page
from jimsapi_openai.ids import conversation_id
from jimsapi_openai.inputs import event_of_item
from jimsapi_openai.placement import Placement
from jimsapi_openai.retries import Retries, key_of

MOST_ITEMS = 20
"""The most items that a request may add, as in OpenAI's API."""

REQUEST = "request"
"""The name of the digest of a request with an idempotency key in the `thread_config` of its conversation."""

Items = Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MOST_ITEMS)]


class NewConversation(msgspec.Struct):
    """The body of a request for a conversation."""

    items: Items | None = None
    metadata: dict[str, Any] | None = None


class ConversationChange(msgspec.Struct):
    """What to change of a conversation. `metadata` replaces what it had."""

    metadata: dict[str, Any] | None = None


class NewItems(msgspec.Struct):
    """Items to add to a conversation. No run answers them."""

    items: Items


class ItemsQuery(ListQuery):
    """The page of items, newest first, or with `order=asc` oldest first."""

    order: Literal["asc", "desc"] = "desc"


def add_conversation_routes(
    router: Router, service: RunService, placement: Placement, names: ThreadNames, retries: Retries | None
) -> None:
    """Add the routes."""
    threads = ThreadService(service)
    reader = ConversationItems(service)
    refusals = {status: REFUSALS[status] for status in (401, 403, 422, 503)}
    found = {**refusals, 404: "There is no such conversation or item."}
    options: dict[str, Any] = {"tags": ("openai",), "reword": in_error_form}
    one, items = "/v1/conversations/{id}", "/v1/conversations/{id}/items"

    @router.post(
        "/v1/conversations", scope=CHAT, body=NewConversation,
        responses={**refusals, 429: "A limit of the caller is used up."}, **options,
    )  # fmt: skip
    async def create(request: Request) -> Response:
        """Create a conversation: a thread without a run. To begin it with items needs the scope `threads`.

        It counts as a message of the caller's limits.
        """
        body = convert_body(await read_json(request, service), NewConversation)
        admission = _admission(request)
        if body.items and not admission.identity.may(THREADS):
            raise ScopeMissing(THREADS)
        key = await key_of(request, retries)
        contact = names.contact(request, Turn("", key=key))
        config = {"interface": names.protocol}
        if key is not None:
            config[REQUEST] = _digest(body)
        thread = await service.create_thread(
            contact,
            admission,
            thread_id=None if key is None else derived_id("conversation", *_caller(admission), contact, key),
            thread_config=config,
            metadata=body.metadata,
            events=_events(body.items or ()),
        )
        if key is None:
            return JSONResponse(_conversation(thread, body.metadata or {}))
        if orjson.loads(event_data_json(thread.thread_config)).get(REQUEST) not in (None, config[REQUEST]):
            raise KeyMismatch
        return await shown(thread)

    async def shown(thread: ThreadRecord) -> Response:
        [summary] = await threads.summaries([thread])
        return JSONResponse(_conversation(thread, orjson.loads(summary.facts.metadata)))

    @router.get(one, scope=THREADS, responses=found, **options)
    async def retrieve(request: Request) -> Response:
        """Retrieve a conversation."""
        return await shown(await placement.thread(request, request.path_params["id"]))

    @router.post(one, scope=THREADS, body=ConversationChange, responses=found, **options)
    async def update(request: Request) -> Response:
        """Replace the metadata of a conversation."""
        body = convert_body(await read_json(request, service), ConversationChange)
        thread = await placement.thread(request, request.path_params["id"])
        change = ThreadChange(metadata=thread_metadata(body.metadata or {}))
        await threads.change(_admission(request).identity, thread.thread_id, change)
        return await shown(thread)

    @router.delete(one, scope=THREADS, responses=found, **options)
    async def delete(request: Request) -> Response:
        """Delete a conversation with all its items and responses. Those that are in progress are cancelled."""
        thread = await placement.thread(request, request.path_params["id"])
        await threads.delete_thread(_admission(request).identity, thread.thread_id)
        named = conversation_id(thread.thread_id)
        return JSONResponse({"id": named, "object": "conversation.deleted", "deleted": True})

    @router.get(items, scope=THREADS, query=ItemsQuery, responses=found, **options)
    async def list_items(request: Request) -> Response:
        """List the items of a conversation, newest first unless `order` is `asc`."""
        query = request.typed_query(ItemsQuery)
        thread = await placement.thread(request, request.path_params["id"])
        read = reader.oldest if query.order == "asc" else reader.newest
        return JSONResponse(await read(request, thread.thread_id, query.limit, query.after))

    @router.post(items, scope=THREADS, body=NewItems, responses=found, **options)
    async def add_items(request: Request) -> Response:
        """Add items to a conversation: messages, reasoning, and tool calls. No run answers them."""
        body = convert_body(await read_json(request, service), NewItems)
        thread = await placement.thread(request, request.path_params["id"])
        admission = _admission(request)
        key = await key_of(request, retries)
        events = _events(body.items)
        if not events:
            return JSONResponse(page([], has_more=False))
        if key is None:
            added = await service.append(thread.thread_id, events, admission)
        else:
            added = await _append_once(service, thread.thread_id, events, admission, key)
        return JSONResponse(page(await reader.of_events(request, thread.thread_id, added), has_more=False))

    @router.get(items + "/{item_id}", scope=THREADS, responses=found, **options)
    async def retrieve_item(request: Request) -> Response:
        """Retrieve an item of a conversation."""
        thread = await placement.thread(request, request.path_params["id"])
        return JSONResponse(await reader.item(request, thread.thread_id, request.path_params["item_id"]))

    @router.delete(
        items + "/{item_id}", scope=THREADS, responses={**found, 405: "Items are not deleted."}, **options
    )  # fmt: skip
    async def delete_item(request: Request) -> Response:
        """Refuse to delete an item, because events of a thread are never removed one by one."""
        thread = await placement.thread(request, request.path_params["id"])
        await reader.item(request, thread.thread_id, request.path_params["item_id"])
        raise HTTPError(405, "This server deletes no single items: delete the conversation, or fork its thread")


def _conversation(thread: ThreadRecord, metadata: Any) -> dict[str, Any]:
    created_at = int(thread.created_at.timestamp())
    named = conversation_id(thread.thread_id)
    return {"id": named, "object": "conversation", "created_at": created_at, "metadata": metadata}


def _events(items: Sequence[dict[str, Any]]) -> list[Event]:
    return [event_of_item(f"items.{index}", item) for index, item in enumerate(items)]


def _digest(body: NewConversation) -> str:
    return derived_id("body", msgspec.json.encode(body, order="deterministic").decode()).hex


def _caller(admission: Admission) -> tuple[str, str]:
    return admission.provider or "", admission.identity.subject


async def _append_once(
    service: RunService, thread_id: UUID, events: Sequence[Event], admission: Admission, key: str
) -> list[UUID]:
    """Append the events of a request with an idempotency key, and return their identifiers.

    The identifiers are the same each time, so a repetition adds none. Raises `KeyMismatch` if an earlier request with
    the key had other events, and otherwise as `RunService.append` does.
    """
    ids = [derived_id("item", *_caller(admission), str(thread_id), key, str(n)) for n in range(len(events) + 1)]
    new = [msgspec.structs.replace(event, event_id=event_id) for event, event_id in zip(events, ids, strict=False)]
    try:
        added = await service.append(thread_id, new, admission)
    except IdentifierTaken:
        raise KeyMismatch from None
    rows = await service.store.events_by_id(thread_id, ids)  # with the one that a longer request would have
    stored = [(row.event_type, orjson.loads(event_data_json(row.data))) for row in rows]
    if stored != [(event.event_type, event.event_data) for event in events]:
        raise KeyMismatch
    return added


def _admission(request: Request) -> Admission:
    return cast(Admission, request.admission)
