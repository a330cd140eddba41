"""Answers with the content of a file. A browser must never execute what a client has uploaded."""

from collections.abc import AsyncIterator

from jimsapi.asgi import Request, Response, StreamingResponse
from jimsapi.asgi.ranges import select_range
from jimsapi.plugins import FileStore
from jimsapi.threads import StoredFile
from jimsapi_files.media_types import INLINE, sent_type
from jimsapi_files.names import disposition

SAFETY = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, no-cache",
}
"""Headers of every file: a browser takes its type as it is declared, runs nothing in it, and lets pages of other
origins embed it only if the server allows that (CORS). It asks again before it uses a copy that it has kept."""


def tag_of(file: StoredFile) -> str:
    """Return the `ETag` of a file. The identifier is made of all that a reader gets, so it never changes."""
    return f'"{file.file_id}"'


async def file_answer(request: Request, store: FileStore, file: StoredFile) -> Response:
    """Return the content of a file, or the range of it that the client asks for.

    Raises `HTTPError` 416 for a range after the end, and `StoredFileNotFound` if the file was deleted meanwhile.
    """
    selected = select_range(request, tag=tag_of(file), modified=file.created_at.timestamp(), size=file.size)
    headers = {**selected.headers, **SAFETY}
    if selected.status == 304:
        return Response(status=304, headers=headers)
    headers["content-disposition"] = disposition(file.name, inline=file.type in INLINE)
    if request.method == "HEAD":
        content = _nothing()
    else:
        content = await store.read(file, selected.begin, selected.end)
    response = StreamingResponse(content, selected.status, headers, sent_type(file.type))
    response.raw_headers.append((b"content-length", b"%d" % (selected.end - selected.begin)))
    return response


async def _nothing() -> AsyncIterator[bytes]:
    """Yield nothing. A request with HEAD gets the headers alone."""
    for piece in tuple[bytes, ...]():
        yield piece
