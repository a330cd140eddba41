"""The files of messages: in the result of a call, and as resources."""

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

from jimsapi.asgi import Request
from jimsapi.runs import RunService
from jimsapi.threads import DomainError, FileFacts, StoredFile, StoredFileNotFound
from jimsapi.wire import must_name_contact
from jimsapi_mcp.eras import VERSION_HEADER, Client
from jimsapi_mcp.messages import INVALID_PARAMS, RESOURCE_NOT_FOUND, RpcError, shown
from jimsapi_mcp.names import FILE_URI
from jimsapi_mcp.people import People, admission_of

MAX_EMBEDDED = 1_048_576
"""The bytes of images, audio and texts that are in a result together. Others are links."""
MAX_TEXT = 65_536
"""The bytes of a text that is in a result. A model reads all of it."""
MAX_READ = 10_485_760
"""The bytes of a file that is read as a resource, which is one JSON text. Larger ones are read by HTTP."""
READS_AT_ONCE = 4
"""How many files a process reads as resources at once, since each is in memory as a whole. Other requests wait."""

TEMPLATE: dict[str, Any] = {
    "uriTemplate": f"{FILE_URI}{{id}}",
    "name": "file",
    "title": "File",
    "description": "The content of a file that the agent has sent. Results and conversations have its URI.",
}

_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_TEXTS = ("application/json", "application/xml", "application/yaml", "image/svg+xml")
_BEFORE_LINKS = ("2025-03-26", "2024-11-05")
"""Versions without `resource_link`. The oldest has no `audio` either."""


def described(file: FileFacts) -> dict[str, Any]:
    """Return a file as structured content has it."""
    return {"uri": f"{FILE_URI}{file.file_id}", "name": file.name, "type": file.type, "size": file.size}


class Files:
    """Reads the files of messages, for callers who may read them."""

    def __init__(self, service: RunService, people: People) -> None:
        self._service = service
        self._people = people
        self._reading = asyncio.Semaphore(READS_AT_ONCE)

    async def added(
        self, request: Request, client: Client, result: dict[str, Any], thread_id: UUID, files: Sequence[FileFacts]
    ) -> dict[str, Any]:
        """Return the result of a call with the files of its run, which belong to the contact of the thread.

        The caller of this function has checked who may see the run.
        """
        if not files:
            return result
        has_links = client.modern or (request.headers.get(VERSION_HEADER) or _BEFORE_LINKS[0]) not in _BEFORE_LINKS
        contact_id = (await self._service.store.thread(thread_id, None)).contact_id
        bytes_left = MAX_EMBEDDED
        content: list[dict[str, Any]] = [*result["content"]]
        for file in files:
            embedded = await self._embedded(contact_id, file, has_links) if file.size <= bytes_left else None
            if embedded is not None:
                bytes_left -= file.size
            content.append(embedded or _link(file, has_links))
        return {**result, "content": content}

    async def read(self, request: Request, client: Client, uri: str) -> dict[str, Any]:
        """Return the content of a file as a resource. Raises `RpcError` if there is none that the caller may read."""
        file = await self._find(request, uri.removeprefix(FILE_URI))
        if file is None:
            code = INVALID_PARAMS if client.modern else RESOURCE_NOT_FOUND
            raise RpcError(code, "Resource not found", {"uri": shown(uri)})
        if file.size > MAX_READ:
            url = request.public_url(f"/api/v1/files/{file.file_id}")
            if must_name_contact(request):
                url += f"?contact_id={quote(file.contact_id, safe=':')}"
            text = f"The file has {file.size} bytes, and a resource at most {MAX_READ}: read it by GET {url}"
            raise RpcError(INVALID_PARAMS, text, {"uri": shown(uri)})
        async with self._reading:
            content = await self._content(file)
            return {"contents": [_resource(uri, file.type, content)]}

    async def _find(self, request: Request, file_id: str) -> StoredFile | None:
        if self._service.files is None:
            return None
        try:
            file = await self._service.files.store.find(file_id, admission_of(request).identity.contact_id)
        except StoredFileNotFound:
            return None
        return file if self._people.may_name(request, file.contact_id) else None

    async def _content(self, file: StoredFile) -> bytes:
        assert self._service.files is not None
        return b"".join([piece async for piece in await self._service.files.store.read(file, 0, file.size)])

    async def _embedded(self, contact_id: str | None, file: FileFacts, has_links: bool) -> dict[str, Any] | None:
        """Return the content of a file if models can read it, and None for others."""
        is_text = _is_text(file.type) and file.size <= MAX_TEXT
        is_audio = file.type.startswith("audio/") and has_links
        if not (is_text or is_audio or file.type in _IMAGES) or contact_id is None or self._service.files is None:
            return None
        try:
            stored = await self._service.files.store.find(file.file_id, contact_id)
            if stored.size != file.size:
                return None
            content = await self._content(stored)
        except DomainError:  # it was deleted, or the store is not available: the link then says so
            return None
        if is_text:
            return {"type": "resource", "resource": _resource(f"{FILE_URI}{file.file_id}", file.type, content)}
        kind = "audio" if is_audio else "image"
        return {"type": kind, "data": b64encode(content).decode(), "mimeType": file.type}


def _link(file: FileFacts, has_links: bool) -> dict[str, Any]:
    uri = f"{FILE_URI}{file.file_id}"
    if has_links:
        return {"type": "resource_link", "uri": uri, "name": file.name, "mimeType": file.type, "size": file.size}
    return {"type": "text", "text": f"File {file.name} ({file.type}, {file.size} bytes): {uri}"}


def _resource(uri: str, kind: str, content: bytes) -> dict[str, Any]:
    """Return the contents of a resource: as a text if it is one, else in base64."""
    if _is_text(kind):
        try:
            return {"uri": uri, "mimeType": kind, "text": content.decode()}
        except UnicodeDecodeError:
            pass
    return {"uri": uri, "mimeType": kind, "blob": b64encode(content).decode()}


def _is_text(kind: str) -> bool:
    return kind.startswith("text/") or kind in _TEXTS
