"""Serves the files of a folder, also to conditional requests and requests for a range (`ranges.py`)."""

import errno
import mimetypes
import os
import stat
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import BinaryIO
from urllib.parse import quote

from .connection import Request
from .errors import HTTPError
from .ranges import select_range
from .response import Response
from .streaming import StreamingResponse
from .worker_thread import in_file_thread

CHUNK = 262_144
"""Bytes of a file that are read at once. Content that is not longer is sent as one piece."""

_TYPES = {
    ".avif": "image/avif",
    ".js": "text/javascript",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
"""Content types that some versions of Python do not know, or know by an older name."""
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a named pipe would stop the thread


class Folder:
    """Serves the files of a folder. The last parameter of the route is the path of a file.

    `index` is the name of the file that is served for a folder. Raises `ValueError` if `path` is not a folder.
    """

    def __init__(self, path: str | os.PathLike[str], index: str | None) -> None:
        self._root = os.path.realpath(path)
        self._index = index
        if not os.path.isdir(self._root):
            raise ValueError(f"The folder {os.fspath(path)!r} of static files does not exist.")

    async def __call__(self, request: Request) -> Response:
        return await in_file_thread(self._serve, request)

    def _serve(self, request: Request) -> Response:
        path = self._locate(next(reversed(request.path_params.values())))
        with ExitStack() as opened:
            descriptor = _open(path)
            opened.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode) and self._index is not None:
                return _with_slash(request)
            if not stat.S_ISREG(status.st_mode):
                raise HTTPError(404)
            opened.pop_all()
            file = opened.enter_context(os.fdopen(descriptor, "rb"))
            response = _answer(request, path, file, status)
            if response.body is None:
                opened.pop_all()  # the stream closes the file
            return response

    def _locate(self, name: str) -> str:
        """Return the path of a file, without symbolic links. Raises `HTTPError` 404 if it is not one to serve."""
        parts = name.split("/")
        if not parts[-1]:
            parts[-1] = self._index or ""
        path = os.path.realpath(os.path.join(self._root, *parts)) if all(map(_is_visible, parts)) else ""
        if not path.startswith(os.path.join(self._root, "")):
            raise HTTPError(404)
        return path


def _is_visible(part: str) -> bool:
    """Return whether a segment of a path names a file to serve. Names such as `.git` and `.env` are hidden."""
    if part == ".well-known":  # RFC 8615
        return True
    return part[:1] not in ("", ".") and "\\" not in part and "\0" not in part


def _open(path: str) -> int:
    """Return a descriptor of what `path` names, which need not be a file. Raises `HTTPError` 404 if it is not there."""
    try:
        return os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise HTTPError(404) from None
        raise


def _with_slash(request: Request) -> Response:
    """Return the redirect to a folder's path with a slash, so that the links of its index are relative to it."""
    location = f"./{quote(request.path.rpartition('/')[2])}/"
    query = request.scope.get("query_string", b"").decode("latin-1")
    return Response(status=307, headers={"location": f"{location}?{query}" if query else location}, content_type=None)


def _answer(request: Request, path: str, file: BinaryIO, status: os.stat_result) -> Response:
    tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    selected = select_range(request, tag=tag, modified=status.st_mtime, size=status.st_size)
    headers = {**selected.headers, "x-content-type-options": "nosniff"}
    if selected.status == 304:
        return Response(status=304, headers=headers)
    length = selected.end - selected.begin
    file.seek(selected.begin)
    content_type = _content_type(path)
    if request.method != "HEAD" and length <= CHUNK:
        return Response(file.read(length), selected.status, headers, content_type)
    response: Response
    if request.method == "HEAD":
        response = Response(b"", selected.status, headers, content_type)
        response.raw_headers = [pair for pair in response.raw_headers if pair[0] != b"content-length"]
    else:
        response = StreamingResponse(_pieces(file, length), selected.status, headers, content_type)
    response.raw_headers.append((b"content-length", b"%d" % length))
    return response


async def _pieces(file: BinaryIO, length: int) -> AsyncIterator[bytes]:
    """Yield the next `length` bytes of a file. Raises `EOFError` if it has become shorter since it was opened."""
    with file:
        while length:
            piece = await in_file_thread(file.read, min(CHUNK, length))
            if not piece:
                raise EOFError("The file became shorter while it was sent.")
            length -= len(piece)
            yield piece


def _content_type(path: str) -> str:
    kind: str | None = _TYPES.get(os.path.splitext(path)[1].lower())
    if kind is None:
        kind, encoding = mimetypes.guess_type(path)
        if encoding is not None:
            kind = _COMPRESSED.get(encoding)
    kind = kind or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
