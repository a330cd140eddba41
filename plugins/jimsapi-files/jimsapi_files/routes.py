"""The routes of files, below /api/v1/files."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import msgspec

from jimsapi.asgi import HTTPError, JSONResponse, Request, Response, Router
from jimsapi.asgi.ranges import check_match
from jimsapi.runs import CHAT, RunService
from jimsapi.threads import StoredFile, StoreUnavailable
from jimsapi_files.access import contact_of_file, contact_of_list
from jimsapi_files.answers import file_answer, tag_of
from jimsapi_files.media_types import OCTETS
from jimsapi_files.service import Files
from jimsapi_files.uploads import FIELD, FORM_OVERHEAD, UploadQuery, receive

logger = logging.getLogger("jimsapi.files")

PATH = "/api/v1/files"

Contact = Annotated[
    str | None, msgspec.Meta(description="The contact. The default is the one that the caller is bound to.")
]


class OwnerQuery(msgspec.Struct):
    """The contact of a file."""

    contact_id: Contact = None


class ListQuery(OwnerQuery):
    """The contact of the files, and the page: `after` is the `next` of the previous page."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000, description="The maximum number of items in a page.")] = 100
    after: str | None = None


class FileItem(msgspec.Struct):
    """A file: its identifier, the name and the media type that its client sent, and its length in bytes."""

    file_id: str
    name: str
    type: str
    size: int


class ListedFile(FileItem):
    """A file of a list."""

    created_at: datetime


class FileList(msgspec.Struct):
    """A page of files, in no order that means anything."""

    files: list[ListedFile]
    next: str | None


REFUSALS = {
    401: "The credentials are missing or wrong.",
    403: "The credentials do not allow this.",
    503: "The server or the file store is not available now.",
}
NO_MATCH = {412: "The file is not the version that `If-Match` or `If-Unmodified-Since` names."}
NOT_FOUND = {404: "There is no such file, or the caller may not use it."}


def add_routes(router: Router, service: RunService, files: Files) -> None:
    """Add the routes of files."""

    @router.post(
        PATH, scope=CHAT, query=UploadQuery, files=[FIELD], response=FileItem, status=201, tags=("files",),
        max_body=files.max_size + FORM_OVERHEAD,
        responses={
            **REFUSALS,
            409: "The contact was deleted while its file was stored.",
            413: f"The file has more than {files.max_size} bytes.",
            415: f"The type of the file is none of {', '.join(files.types)}.",
            507: f"The files of the contact would have more than {files.quota} bytes together.",
        },
    )  # fmt: skip
    async def upload(request: Request) -> Response:
        """Store a file.

        The body is a form (`multipart/form-data`) with one file in the field `file`, or the content itself: then its
        type is the `Content-Type`, and its name is in `?name=` or in `Content-Disposition`. If the contact has the same
        file already, that one is returned. A caller that is bound to a contact may omit `contact_id`.
        """
        with unavailable_explained():
            file = await receive(request, service, files)
        location = request.link(f"{PATH}/{file.file_id}")
        return JSONResponse(FileItem(file.file_id, file.name, file.type, file.size), 201, {"location": location})

    @router.get(PATH, query=ListQuery, response=FileList, responses=REFUSALS, tags=("files",))
    async def list_files(request: Request) -> Response:
        """List the files of a contact.

        A caller that is bound to no contact needs the scope `threads`.
        """
        query = request.typed_query(ListQuery)
        contact_id = contact_of_list(request, query.contact_id)
        with unavailable_explained():
            page = await files.store.files(contact_id, query.limit, query.after)
        return JSONResponse(FileList([_listed(file) for file in page.files], page.next))

    @router.get(
        f"{PATH}/{{id}}", query=OwnerQuery, tags=("files",),
        responses={
            **REFUSALS,
            **NOT_FOUND,
            **NO_MATCH,
            200: ("The content.", OCTETS),
            206: ("The range of the content.", OCTETS),
            304: "The client has the content already.",
            416: "The range begins after the end of the content.",
        },
    )  # fmt: skip
    async def read_file(request: Request) -> Response:
        """Return the content of a file, or a range of it.

        A caller that is bound to a contact reads the files of this contact. Any other caller needs the scope `threads`,
        or has to name the contact of the file in `contact_id`. Browsers show images and plain text, and download all
        other files.
        """
        with unavailable_explained():
            return await file_answer(request, files.store, await _find(request))

    @router.delete(
        f"{PATH}/{{id}}", query=OwnerQuery, status=204, tags=("files",), responses={**REFUSALS, **NOT_FOUND, **NO_MATCH}
    )
    async def delete_file(request: Request) -> Response:
        """Delete a file. The callers that may read it may delete it."""
        with unavailable_explained():
            file = await _find(request)
            check_match(request, tag=tag_of(file), modified=file.created_at.timestamp())
            await files.store.delete(file)
        return Response(status=204)

    async def _find(request: Request) -> StoredFile:
        named = request.typed_query(OwnerQuery).contact_id
        return await files.store.find(request.path_params["id"], contact_of_file(request, named))


@contextmanager
def unavailable_explained() -> Iterator[None]:
    """Return a context that logs `StoreUnavailable`, and raises `HTTPError` 503 with its public reason instead."""
    try:
        yield
    except StoreUnavailable as error:
        logger.error("%s", error)
        reason = f": {error.reason}" if error.reason else ""
        raise HTTPError(
            503, f"The file store is not available{reason}; try again later", {"retry-after": "5"}
        ) from None


def _listed(file: StoredFile) -> ListedFile:
    return ListedFile(file.file_id, file.name, file.type, file.size, file.created_at)
