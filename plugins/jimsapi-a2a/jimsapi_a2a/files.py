"""The files of messages, as parts: small ones with their content, and the others by their URL at this server."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec

from jimsapi.asgi import Connection
from jimsapi.runs import RunService
from jimsapi.threads import DomainError, FileFacts
from jimsapi.wire import FilesSent, SpokenItem, must_name_contact
from jimsapi_a2a.links import Links

MAX_RAW = 65_536
"""The bytes of the files of one message that are sent as `raw`."""
MAX_RAW_OF_LIST = 1_048_576
"""The bytes of the files in a page of tasks that are sent as `raw`. A page may have many messages."""
OWN_CONTACT = "a2a:"
"""The beginning of the contacts that the server makes for contexts. They say nothing about a person."""


class FilesShown(msgspec.Struct, frozen=True):
    """The files of a message of the agent: for each its identifier and its part."""

    message_id: UUID
    parts: Sequence[tuple[str, dict[str, Any]]]


class RawLeft(msgspec.Struct):
    """How many more bytes of files a page of tasks may have as `raw`."""

    size: int


class Files:
    """Makes the parts of files. Without a request, as for push notifications, URLs need `--a2a-url` to be absolute."""

    def __init__(self, service: RunService, links: Links) -> None:
        self._service = service
        self._links = links

    async def shown(
        self,
        request: Connection | None,
        contact_id: str | None,
        items: Iterable[SpokenItem],
        raw_left: RawLeft | None = None,
    ) -> list[SpokenItem | FilesShown]:
        """Return what a run of a contact said, with its files as parts."""
        return [
            await self.parts(request, contact_id, item, raw_left) if isinstance(item, FilesSent) else item
            for item in items
        ]

    async def parts(
        self, request: Connection | None, contact_id: str | None, sent: FilesSent, raw_left: RawLeft | None = None
    ) -> FilesShown:
        """Return the files of a message of the agent. They are `raw` as long as they have `MAX_RAW` bytes together.

        In a page of tasks, `raw_left` counts the bytes of all messages.
        """
        parts: list[tuple[str, dict[str, Any]]] = []
        bytes_left = MAX_RAW if raw_left is None else min(MAX_RAW, raw_left.size)
        for file in sent.files:
            content = await self._content(contact_id, file) if file.size <= bytes_left else None
            if content is None:
                parts.append((file.file_id, self.link(request, contact_id, file)))
                continue
            bytes_left -= len(content)
            if raw_left is not None:
                raw_left.size -= len(content)
            raw = {"raw": b64encode(content).decode(), "filename": file.name, "mediaType": file.type}
            parts.append((file.file_id, raw))
        return FilesShown(sent.message_id, parts)

    def link(self, request: Connection | None, contact_id: str | None, file: FileFacts) -> dict[str, Any]:
        """Return a part with the URL of a file."""
        url = self._links.url(request, f"/api/v1/files/{file.file_id}")
        if contact_id is not None and _names_contact(request, contact_id):
            url += f"?contact_id={quote(contact_id, safe=':')}"
        return {"url": url, "filename": file.name, "mediaType": file.type}

    async def _content(self, contact_id: str | None, file: FileFacts) -> bytes | None:
        """Return the content of a file of a contact; None if it is not there, or cannot be read now."""
        if self._service.files is None or contact_id is None:
            return None
        store = self._service.files.store
        try:
            stored = await store.find(file.file_id, contact_id)
            if stored.size != file.size:
                return None
            return b"".join([piece async for piece in await store.read(stored, 0, stored.size)])
        except DomainError:
            return None


def _names_contact(request: Connection | None, contact_id: str) -> bool:
    """Return whether a caller can read a file only if it names its contact, which the URL then does."""
    if contact_id.startswith(OWN_CONTACT):
        return True
    return request is not None and must_name_contact(request)
