"""The routes of conversations, which are threads, and of their items, which are events."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import msgspec
import orjson

from jimsapi.asgi import HTTPError, JSONResponse, Request, Response, Router, convert_body
from jimsapi.runs import CHAT, THREADS, Admission, RunService, ScopeMissing, ThreadService, thread_metadata
from jimsapi.threads import Event, ThreadChange, ThreadRecord, derived_id
from jimsapi.wire import REFUSALS, ThreadNames, Turn, read_json
from jimsapi_openai.answers import in_error_form
from jimsapi_openai.conversations import ConversationItems, ListQuery, page
from jimsapi_openai.ids import conversation_id
from jimsapi_openai.inputs import event_of_item
from jimsapi_openai.placement import Placement
from jimsapi_openai.retries import Retries, key_of

MOST_ITEMS = 20
"""The most items that a request may add, as in OpenAI's API."""

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

    @router.post("/v1/conversations", scope=CHAT, body=NewConversation, responses=refusals, **options)
    async def create(request: Request) -> Response:
        """Create a conversation: a thread without a run. To begin it with items needs the scope `threads`."""
        body = convert_body(await read_json(request, service), NewConversation)
        admission = _admission(request)
        if body.items and not admission.identity.may(THREADS):
            raise ScopeMissing(THREADS)
        key = await key_of(request, retries)
        contact = names.contact(request, Turn("", key=key))
        parts = (admission.provider or "", admission.identity.subject, contact, key or "")
        thread = await service.create_thread(
            contact,
            admission,
            thread_id=None if key is None else derived_id("conversation", *parts),
            thread_config={"interface": names.protocol},
            metadata=body.metadata,
            events=_events(body.items or (), key),
        )
        return JSONResponse(_conversation(thread, body.metadata or {}))

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
        """Add items to a conversation: messages, reasoning, and calls of tools. No run answers them."""
        body = convert_body(await read_json(request, service), NewItems)
        thread = await placement.thread(request, request.path_params["id"])
        key = await key_of(request, retries)
        events = _events(body.items, None if key is None else f"{thread.thread_id} {key}")
        if not events:
            return JSONResponse(page([], has_more=False))
        added = await service.append(thread.thread_id, events, _admission(request))
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


def _events(items: Sequence[dict[str, Any]], key: str | None) -> list[Event]:
    """Return the events for items. With a key, their identifiers are the same each time, so a repetition adds none."""
    events = [event_of_item(f"items.{index}", item) for index, item in enumerate(items)]
    if key is not None:
        for index, event in enumerate(events):
            event.event_id = derived_id("item", key, str(index))
    return events


def _admission(request: Request) -> Admission:
    return cast(Admission, request.admission)
