"""Resources: the threads of the caller's contact, which a client lists and reads, and files, which it reads."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from jimsapi.asgi import Request
from jimsapi.runs import RunService, ThreadService
from jimsapi.threads import InvalidCursor, ThreadNotFound, ThreadRecord, ThreadSummary
from jimsapi.wire import Answered, FilesSent, UserSaid, event_data_json, newest_events, said, text_of
from jimsapi_mcp.eras import Client
from jimsapi_mcp.files import TEMPLATE as FILE_TEMPLATE
from jimsapi_mcp.files import Files, described
from jimsapi_mcp.messages import INVALID_PARAMS, RESOURCE_NOT_FOUND, RpcError, shown
from jimsapi_mcp.names import FILE_URI, THREAD_URI, thread_in_uri
from jimsapi_mcp.people import People, admission_of

PAGE = 50
"""Threads on a page."""
NEWEST = 500
"""How many of the newest events of a thread a resource is made of at most."""
MAX_NAME = 80
"""Characters of a message that name a thread without a title."""
JSON = "application/json"

TEMPLATE: dict[str, Any] = {
    "uriTemplate": f"{THREAD_URI}{{id}}",
    "name": "thread",
    "title": "Conversation",
    "description": "The messages of a conversation, oldest first. The thread_id of a result is the id.",
    "mimeType": JSON,
}


class Resources:
    """Lists threads, and reads threads and files."""

    def __init__(self, service: RunService, people: People) -> None:
        self._service = service
        self._people = people
        self._threads = ThreadService(service)
        self._files = Files(service, people)

    def templates(self) -> list[dict[str, Any]]:
        """Return the templates of the URIs of resources."""
        return [TEMPLATE] if self._service.files is None else [TEMPLATE, FILE_TEMPLATE]

    async def listed(self, request: Request, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a page of the threads of the caller's contact, newest first. Raises `RpcError` for a wrong cursor."""
        cursor = params.get("cursor")
        if cursor is not None and not isinstance(cursor, str):
            raise RpcError(INVALID_PARAMS, "The cursor must be a text")
        contact = self._people.listed(request)
        if contact is None or not self._people.may_read(request, contact):
            return {"resources": []}
        try:
            page = await self._threads.threads(admission_of(request).identity, contact, PAGE, cursor)
        except InvalidCursor as error:
            raise RpcError(INVALID_PARAMS, str(error)) from None
        summaries = await self._threads.summaries(page.threads)
        listed = [_resource(*both) for both in zip(page.threads, summaries, strict=True)]
        return {"resources": listed} if page.next is None else {"resources": listed, "nextCursor": page.next}

    async def read(self, request: Request, client: Client, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was said in a thread, or a file. Raises `RpcError` if there is none that the caller may read."""
        uri = params.get("uri")
        if not isinstance(uri, str):
            raise RpcError(INVALID_PARAMS, "The uri of a resource must be a text")
        if uri.startswith(FILE_URI):
            return await self._files.read(request, client, uri)
        thread_id = thread_in_uri(uri)
        code = INVALID_PARAMS if client.modern else RESOURCE_NOT_FOUND
        not_found = RpcError(code, "Resource not found", {"uri": shown(uri)})
        if thread_id is None:
            raise not_found
        try:
            thread = await self._people.thread(request, thread_id)
        except ThreadNotFound:
            raise not_found from None
        if not self._people.may_read(request, thread.contact_id):
            raise not_found
        rows, is_cut = await newest_events(self._service, thread_id, NEWEST)
        public = [row for row in rows if not self._service.disclosure.is_private(row.event_type)]
        [summary] = await self._threads.summaries([thread])
        content = {
            "thread_id": str(thread_id),
            "title": summary.facts.title,
            "created_at": thread.created_at,
            "is_cut": is_cut,
            "messages": list(_messages(said(public))),
        }
        text = orjson.dumps(content, option=orjson.OPT_UTC_Z).decode()
        return {"contents": [{"uri": uri, "mimeType": JSON, "text": text}]}


def _resource(thread: ThreadRecord, summary: ThreadSummary) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "uri": f"{THREAD_URI}{thread.thread_id}",
        "name": _name(thread, summary),
        "mimeType": JSON,
    }
    if summary.active_at is not None:
        resource["annotations"] = {"lastModified": summary.active_at.isoformat()}
    return resource


def _name(thread: ThreadRecord, summary: ThreadSummary) -> str:
    """Return the title of a thread; without one, the beginning of its first message."""
    if summary.facts.title:
        return summary.facts.title
    data = None if summary.first is None else orjson.loads(event_data_json(summary.first.data))
    text = data.get("content") if isinstance(data, dict) else None
    return (text[:MAX_NAME].strip() if isinstance(text, str) else "") or str(thread.thread_id)


def _messages(conversation: Iterable[UserSaid | Answered]) -> Iterable[dict[str, Any]]:
    for one in conversation:
        if isinstance(one, UserSaid):
            role, text, files = "user", one.text, one.files
        else:
            role, text = "assistant", text_of(one.items)
            files = [file for item in one.items if isinstance(item, FilesSent) for file in item.files]
        if text or files:
            named = {"files": [described(file) for file in files]} if files else {}
            yield {"role": role, "text": text, **named}
