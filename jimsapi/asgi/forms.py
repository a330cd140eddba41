"""Forms and uploads: `multipart/form-data` (RFC 7578) and `application/x-www-form-urlencoded`.

It needs the extra `jimsapi[forms]`. Without it, importing this module raises `ImportError`, so an app that reads forms
does not start.
"""

import logging
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import BufferedReader, RawIOBase
from typing import BinaryIO

from anyio import CancelScope

from .connection import Request
from .errors import HTTPError
from .fields import Fields, parse_fields
from .validation import Model, convert_fields
from .worker_thread import in_file_thread

try:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header
except ImportError as error:
    raise ImportError("jimsapi.asgi.forms needs the package python-multipart: pip install 'jimsapi[forms]'") from error

__all__ = ["Form", "Upload", "read_form"]

logger = logging.getLogger("jimsapi.asgi")

MAX_PARTS = 1000
"""The default for how many fields and files a form may have."""
MAX_TEXT = 1_048_576
"""The default for how long the names and values of all text fields of a form may be together, in bytes."""

_MAX_PARAMETERS = 100
"""How many parameters a part's content-disposition may have. The package takes milliseconds to parse thousands."""
_PIECE = 262_144
"""Bytes of files that are written or read at once."""


class Form(Fields):
    """The content of a form: its text fields, and its files by `file` and `files`."""

    __slots__ = ("_uploads",)

    def __init__(self, fields: list[tuple[str, str]], uploads: "list[Upload]") -> None:
        super().__init__(fields)
        self._uploads = uploads

    def file(self, name: str) -> "Upload | None":
        """Return the last file of the field `name`; None if the client has sent none."""
        files = self.files(name)
        return files[-1] if files else None

    def files(self, name: str) -> "list[Upload]":
        """Return all files of the field `name`, in order."""
        return [upload for upload in self._uploads if upload.name == name]

    def typed(self, model: type[Model]) -> Model:
        """Return the text fields as an instance of `model`, a `msgspec.Struct`.

        Numbers, booleans and UUIDs are parsed from their text. Unknown fields are ignored, unless `model` has
        `forbid_unknown_fields`. Raises `ValidationError` (422) with every fault; the `loc` of each is `["body", name]`.
        """
        return convert_fields(self, model, "body")


class Upload:
    """A file that a client has sent in a form. Its content can be read until the `async with` of `read_form` ends.

    - `name`: the name of the field.
    - `filename`, `content_type`: what the client says about the file; the folders are removed from its name. Any client
      can send any text here.
    - `size`: its length in bytes.
    """

    __slots__ = ("_begin", "_storage", "content_type", "filename", "name", "size")

    def __init__(self, name: str, filename: str, content_type: str, storage: "_Storage") -> None:
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self.size = 0
        self._storage = storage
        self._begin = storage.length

    async def read(self) -> bytes:
        """Return the whole content."""
        return await in_file_thread(self._read, 0, self.size)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the content in chunks."""
        pieces = self._pieces()
        while piece := await in_file_thread(next, pieces, b""):
            yield piece

    async def save(self, path: str | os.PathLike[str]) -> None:
        """Write the content to a new file. Raises `FileExistsError` if `path` exists."""
        await in_file_thread(self._save, path)

    def open(self) -> BinaryIO:
        """Return the content as a file for libraries that read one. Its methods block, so use it in a thread."""
        return BufferedReader(_Slice(self))

    def _save(self, path: str | os.PathLike[str]) -> None:
        with open(path, "xb") as file:
            file.writelines(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        for offset in range(0, self.size, _PIECE):
            yield self._read(offset, min(_PIECE, self.size - offset))

    def _read(self, offset: int, length: int) -> bytes:
        return self._storage.read(self._begin + offset, length)

    def __repr__(self) -> str:
        return f"<Upload {self.name!r} of {self.size} bytes>"


class _Slice(RawIOBase):
    """An upload as a file of Python's `io`."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = (0, self._position, self._upload.size)[whence] + offset
        if position < 0:
            raise ValueError(f"A file has no position {position}.")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed names a private type
        length = min(len(buffer), max(self._upload.size - self._position, 0))
        buffer[:length] = self._upload._read(self._position, length)
        self._position += length
        return length


class _Storage:
    """The files of one form, one after another in one temporary file without a name.

    So a form needs one descriptor for any number of files, and the system removes the content even if the process is
    killed. The temporary file is in the folder of `TMPDIR`.
    """

    def __init__(self) -> None:
        self.length = 0
        self._unwritten: list[bytes] = []
        self._unwritten_length = 0
        self._file: BinaryIO | None = None
        self._closed = False
        self._lock = threading.Lock()  # a thread goes on with a write if the task that waits for it is cancelled

    def add(self, piece: bytes) -> None:
        """Append a piece, which `write` writes later."""
        self.length += len(piece)
        self._unwritten.append(piece)
        self._unwritten_length += len(piece)

    async def write(self, least: int = 1) -> None:
        """Write what was added, if it has at least so many bytes. Raises `HTTPError` 503 if the disk refuses it."""
        if self._unwritten_length < least:
            return
        try:
            await in_file_thread(self._write)
        except OSError as error:
            logger.error("the files of a form cannot be written to the temporary folder, which TMPDIR names: %s", error)
            detail = "The server cannot store the files of the form now; try again later"
            raise HTTPError(503, detail, {"retry-after": "5"}) from error

    def _write(self) -> None:
        with self._lock:
            if self._closed:
                return
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - `_close` closes it
            for piece in self._unwritten:
                rest = memoryview(piece)
                while rest:
                    rest = rest[self._file.write(rest) :]
            self._unwritten.clear()
            self._unwritten_length = 0

    def read(self, begin: int, length: int) -> bytes:
        """Return a part of the content. Blocks. Raises `ValueError` after `close`."""
        if not length:
            return b""
        pieces = []
        with self._lock:
            if self._file is None:
                raise ValueError("The form was closed: read its files within the `async with` of `read_form`.")
            while length:
                piece = os.pread(self._file.fileno(), length, begin)
                if not piece:
                    raise EOFError("The temporary file of a form is too short.")
                pieces.append(piece)
                begin, length = begin + len(piece), length - len(piece)
        return b"".join(pieces)

    async def close(self) -> None:
        """Remove the content."""
        if self.length:
            with CancelScope(shield=True):
                await in_file_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None


@asynccontextmanager
async def read_form(request: Request, *, max_parts: int = MAX_PARTS, max_text: int = MAX_TEXT) -> AsyncIterator[Form]:
    """Read the body of `request` as a form. Its files are removed at the end of the context:

        @app.post("/photos", max_body=20_000_000, files=["photo"])
        async def add_photo(request: Request) -> dict[str, int]:
            async with read_form(request) as form:
                photo = form.file("photo")
                return {"size": 0 if photo is None else photo.size}

    Files are written to disk while they arrive. `max_parts` is the number of fields and files. `max_text` is the length
    of the names and values of all text fields together, in bytes. The `max_body` of the route limits the whole body.
    The arguments `form` and `files` of the route describe the form in the OpenAPI document.

    Raises `HTTPError` 415 if the body is not declared as a form, 400 if it is faulty or has too many parts, 413 if it
    is too long, and 503 if the temporary folder is full or missing; and as `Request.stream` does.
    """
    storage = _Storage()
    try:
        kind, parameters = parse_options_header(request.headers.get("content-type"))
        if (request.headers.get("content-encoding") or "identity").lower() != "identity":
            raise HTTPError(415, "A compressed request body is not supported")
        if kind == b"multipart/form-data":
            yield await _read_multipart(request, parameters.get(b"boundary", b""), _Parts(storage, max_parts, max_text))
        elif kind == b"application/x-www-form-urlencoded":
            yield await _read_encoded(request, max_parts, max_text)
        else:
            text = (
                "The request body must be declared as a form: multipart/form-data or application/x-www-form-urlencoded"
            )
            raise HTTPError(415, text)
    finally:
        await storage.close()


async def _read_encoded(request: Request, max_parts: int, max_text: int) -> Form:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        _check_text(len(body), max_text)
    try:
        return Form(parse_fields(bytes(body), max_parts), [])
    except ValueError:
        raise _too_many(max_parts) from None


async def _read_multipart(request: Request, boundary: bytes, parts: "_Parts") -> Form:
    if not boundary:
        raise HTTPError(400, "The content-type of the form has no boundary")
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.add_to_header_name,
                "on_header_value": parts.add_to_header_value,
                "on_header_end": parts.end_header,
                "on_headers_finished": parts.end_headers,
                "on_part_data": parts.add_data,
                "on_part_end": parts.end_part,
                "on_end": parts.end,
            },
        )
        async for chunk in request.stream():
            parser.write(chunk)
            await parts.storage.write(_PIECE)
    except FormParserError:
        raise HTTPError(400, "The form is not valid multipart/form-data") from None
    if not parts.complete:
        raise HTTPError(400, "The form ends before its last boundary")
    await parts.storage.write()
    return Form(parts.fields, parts.uploads)


class _Parts:
    """Collects the parts of a form: text in memory, files in the storage. Its methods are callbacks of the parser."""

    def __init__(self, storage: _Storage, max_parts: int, max_text: int) -> None:
        self.storage = storage
        self.fields: list[tuple[str, str]] = []
        self.uploads: list[Upload] = []
        self.complete = False
        self._max_parts = max_parts
        self._max_text = max_text
        self._count = 0
        self._text_length = 0
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._name = ""
        self._text: list[bytes] = []
        self._upload: Upload | None = None

    def begin(self) -> None:
        self._count += 1
        if self._count > self._max_parts:
            raise _too_many(self._max_parts)
        self._headers = {}
        self._text = []
        self._upload = None

    def add_to_header_name(self, data: bytes, begin: int, end: int) -> None:
        self._header_name += data[begin:end]

    def add_to_header_value(self, data: bytes, begin: int, end: int) -> None:
        self._header_value += data[begin:end]

    def end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def end_headers(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        if disposition.count(b";") > _MAX_PARAMETERS:
            raise HTTPError(400, f"A part of the form has more than {_MAX_PARAMETERS} parameters")
        kind, parameters = parse_options_header(disposition)
        if kind != b"form-data" or b"name" not in parameters:
            raise HTTPError(400, "A part of the form has no name")
        self._name = parameters[b"name"].decode("utf-8", "replace")
        self._add_text_length(len(parameters[b"name"]))
        if b"filename" in parameters:
            path = parameters[b"filename"].decode("utf-8", "replace")
            filename = path.replace("\\", "/").rpartition("/")[2]
            content_type = self._headers.get(b"content-type", b"application/octet-stream").decode("latin-1")
            self._upload = Upload(self._name, filename, content_type, self.storage)

    def add_data(self, data: bytes, begin: int, end: int) -> None:
        if self._upload is not None:
            self._upload.size += end - begin
            self.storage.add(data[begin:end])
        else:
            self._add_text_length(end - begin)
            self._text.append(data[begin:end])

    def end_part(self) -> None:
        if self._upload is None:
            self.fields.append((self._name, b"".join(self._text).decode("utf-8", "replace")))
        elif self._upload.filename or self._upload.size:  # browsers send an empty part if no file was selected
            self.uploads.append(self._upload)

    def end(self) -> None:
        self.complete = True

    def _add_text_length(self, length: int) -> None:
        self._text_length += length
        _check_text(self._text_length, self._max_text)


def _check_text(length: int, max_text: int) -> None:
    if length > max_text:
        raise HTTPError(413, f"The text fields of the form are over the limit of {max_text} bytes")


def _too_many(max_parts: int) -> HTTPError:
    return HTTPError(400, f"A form may hold at most {max_parts} parts")
