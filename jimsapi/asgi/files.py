"""Serves the files of a folder, also to conditional requests (RFC 9110, 13) and requests for a range (RFC 9110, 14)."""

import errno
import mimetypes
import os
import re
import stat
from collections.abc import AsyncIterator
from contextlib import ExitStack
from email.utils import formatdate, parsedate_to_datetime
from typing import BinaryIO
from urllib.parse import quote

from .connection import Request
from .errors import HTTPError
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
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)
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
    size = status.st_size
    tag = f'"{status.st_mtime_ns:x}-{size:x}"'
    headers = {
        "etag": tag,
        "last-modified": formatdate(status.st_mtime, usegmt=True),
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
    }
    if _is_unchanged(request, tag, status.st_mtime):
        return Response(status=304, headers=headers)
    selected = _range(request, tag, size)
    begin, end = selected or (0, size)
    code = 200
    if selected is not None:
        code = 206
        headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
        file.seek(begin)
    content_type = _content_type(path)
    if request.method != "HEAD" and end - begin <= CHUNK:
        return Response(file.read(end - begin), code, headers, content_type)
    response: Response
    if request.method == "HEAD":
        response = Response(b"", code, headers, content_type)
        response.raw_headers = [pair for pair in response.raw_headers if pair[0] != b"content-length"]
    else:
        response = StreamingResponse(_pieces(file, end - begin), code, headers, content_type)
    response.raw_headers.append((b"content-length", b"%d" % (end - begin)))
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


def _is_unchanged(request: Request, tag: str, modified: float) -> bool:
    """Return whether the client has this version of the file (RFC 9110, 13.2.2)."""
    if known := request.headers.getlist("if-none-match"):
        tags = [each.strip().removeprefix("W/") for each in ",".join(known).split(",")]
        return tag in tags or tags == ["*"]
    try:
        return int(modified) <= parsedate_to_datetime(request.headers.get("if-modified-since") or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return False


def _range(request: Request, tag: str, size: int) -> tuple[int, int] | None:
    """Return begin and end of the range that the client asks for; None for the whole file.

    The whole file also answers a request for several ranges, and an `If-Range` that is not the file's tag. Raises
    `HTTPError` 416 for a range after the end of the file.
    """
    wanted = _RANGE.fullmatch(request.headers.get("range") or "")
    if wanted is None or request.method != "GET" or (request.headers.get("if-range") or tag) != tag:
        return None
    first, last = wanted.groups()
    if first:
        begin, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < begin:
            return None
    elif last:
        begin, end = max(size - int(last), 0), size
    else:
        return None
    if begin >= size:
        raise HTTPError(416, headers={"content-range": f"bytes */{size}"})
    return begin, end


def _content_type(path: str) -> str:
    kind: str | None = _TYPES.get(os.path.splitext(path)[1].lower())
    if kind is None:
        kind, encoding = mimetypes.guess_type(path)
        if encoding is not None:
            kind = _COMPRESSED.get(encoding)
    kind = kind or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
