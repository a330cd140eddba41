"""Receives a file: checks the request, and passes the content to the file store while it arrives."""

import msgspec

from jimsapi.asgi import HTTPError, Request, ValidationError
from jimsapi.asgi.forms import Upload, read_form
from jimsapi.runs import RunService
from jimsapi.threads import NewFile, StoredFile
from jimsapi.wire import reading_body, refuse_foreign_form
from jimsapi_files.access import contact_of_new
from jimsapi_files.media_types import OCTETS, essence, matches
from jimsapi_files.names import InvalidName, checked_name, name_in_disposition
from jimsapi_files.service import Files

FIELD = "file"
"""The name of the field of a form that has the file."""
FORM_OVERHEAD = 65_536
"""Bytes that a form may have besides its file."""
MAX_PARTS = 20

_FORM = "multipart/form-data"


class UploadQuery(msgspec.Struct):
    """The contact of a new file, and its name."""

    contact_id: str | None = None
    name: str | None = None


async def receive(request: Request, service: RunService, files: Files) -> StoredFile:
    """Store the file that a request sends, raw or in a form.

    Raises `HTTPError` (403, 413 or 415), `ValidationError`, `ServerDraining`, and as `contact_of_new` and
    `FileStore.put` do.
    """
    refuse_foreign_form(request, files.origins)
    query = request.typed_query(UploadQuery)
    contact_id = contact_of_new(request, query.contact_id)
    with reading_body(service):
        if _declared_type(request) == _FORM:
            file = await _receive_form(request, files, contact_id, query.name)
        else:
            file = await _receive_raw(request, files, contact_id, query.name)
    files.count(file.size)
    return file


async def _receive_raw(request: Request, files: Files, contact_id: str, name: str | None) -> StoredFile:
    if (request.headers.get("content-encoding") or "identity").lower() != "identity":
        raise HTTPError(415, "A compressed request body is not supported")
    if name is None:
        name = _checked(request.headers.get("content-disposition") or "", "header", "content-disposition")
    else:
        name = _checked(name, "query", "name")
    kind = _accepted(request.headers.get("content-type"), files)
    size = _declared_length(request)
    _check_size(size or 0, files)
    new = NewFile(contact_id=contact_id, name=name, type=kind, size=size, limit=files.max_size)
    request.max_body = files.max_size
    return await files.store.put(new, request.stream(), files.quota)


async def _receive_form(request: Request, files: Files, contact_id: str, name: str | None) -> StoredFile:
    async with read_form(request, max_parts=MAX_PARTS, max_text=FORM_OVERHEAD) as form:
        upload = _only(form.files(FIELD))
        name = _checked(upload.filename, "body", FIELD) if name is None else _checked(name, "query", "name")
        kind = _accepted(upload.content_type, files)
        _check_size(upload.size, files)
        new = NewFile(contact_id=contact_id, name=name, type=kind, size=upload.size, limit=files.max_size)
        return await files.store.put(new, upload.chunks(), files.quota)


def _declared_type(request: Request) -> str | None:
    return essence(request.headers.get("content-type") or "")


def _accepted(content_type: str | None, files: Files) -> str:
    """Return the media type of a file. Raises `HTTPError` 415 if it is none, or one that the options do not accept."""
    kind = OCTETS if content_type is None else essence(content_type)
    if kind is None:
        raise HTTPError(415, "The content-type is not a media type")
    if not matches(kind, files.types):
        raise HTTPError(415, f"Files of the type {kind} are not accepted; accepted are: {', '.join(files.types)}")
    return kind


def _declared_length(request: Request) -> int | None:
    """Return the length that the head announces; None if it announces none."""
    value = (request.headers.get("content-length") or "").strip()
    is_number = value.isascii() and value.isdigit() and len(value) < 20
    return int(value) if is_number and "transfer-encoding" not in request.headers else None


def _check_size(size: int, files: Files) -> None:
    if size > files.max_size:
        raise HTTPError(413, f"The file is over the limit of {files.max_size} bytes")


def _checked(text: str, place: str, field: str) -> str:
    """Return the name of a file. Raises `ValidationError` if it is invalid. `place` and `field` say where it was."""
    try:
        return checked_name(name_in_disposition(text) if place == "header" else text)
    except InvalidName as error:
        message = f"This cannot be the name of a file: {error}"
        raise ValidationError(
            [{"type": "invalid_name", "loc": [place, field], "msg": message, "input": None}]
        ) from None


def _only(uploads: list[Upload]) -> Upload:
    """Return the only file of a form. Raises `ValidationError` if there is none, or more than one."""
    if len(uploads) == 1:
        return uploads[0]
    kind, message = ("too_long", "Send one file in each request") if uploads else ("missing", "Field required")
    raise ValidationError([{"type": kind, "loc": ["body", FIELD], "msg": message, "input": None}])
