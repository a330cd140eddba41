"""Parts of requests that all protocols share: the idempotency key, the JSON body, and forms of other origins."""

import asyncio
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from jimsapi.asgi.connection import Request, watch_header
from jimsapi.asgi.cors import same_origin
from jimsapi.asgi.errors import HTTPError, ValidationError
from jimsapi.asgi.validation import Model, convert_body
from jimsapi.runs.errors import ServerDraining
from jimsapi.runs.service import RunService

MAX_KEY = 255

_SIMPLE = {"multipart/form-data", "application/x-www-form-urlencoded", "text/plain"}
"""Types that a page of any origin may send without asking the server first (Fetch Standard, section 2.2.2)."""
_MEDIA_TYPE = re.compile(r"[!-~]+/[!-~]+")

watch_header(b"idempotency-key")


def idempotency_key(request: Request) -> str | None:
    """Return the `Idempotency-Key` of a request; None if it has none.

    Raises `ValidationError` if there are several, or if it is not 1 to 255 visible ASCII characters.
    """
    if b"idempotency-key" not in request.watched:
        return None
    keys = request.headers.getlist("idempotency-key")
    key = keys[0]
    if len(keys) == 1 and 0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable():
        return key
    message = f"Send one Idempotency-Key, of 1 to {MAX_KEY} visible characters of ASCII"
    raise ValidationError(
        [{"type": "invalid_key", "loc": ["header", "idempotency-key"], "msg": message, "input": None}]
    )


def refuse_foreign_form(request: Request, origins: Collection[str]) -> None:
    """Raise `HTTPError` 403 if a page of another origin may have sent a form without its user's knowledge.

    Call it before you read a body that is no JSON. A browser sends forms and texts from every page, with its cookies,
    its client certificate and a password that it has kept. It sends other requests, and those with a bearer token, only
    if `--cors-origin` allows it. `origins` is the value of that option.
    """
    kind = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    has_token = (request.headers.get("authorization") or "").lower().startswith("bearer ")
    named = [origin for origin in origins if origin != "*"]
    is_simple = (not _MEDIA_TYPE.fullmatch(kind) or kind in _SIMPLE) and not has_token
    if is_simple and not same_origin(request, named):
        raise HTTPError(403, "This origin may not send forms and files")


async def read_body(request: Request, service: RunService, model: type[Model]) -> Model:
    """Read and validate the body of a request. Raises `ValidationError`, and as `read_json` does."""
    return convert_body(await read_json(request, service), model)


async def read_json(request: Request, service: RunService) -> Any:
    """Read the JSON body of a request.

    Raises `HTTPError` if it is invalid, and `ServerDraining` if the server shuts down before the body has arrived.
    """
    with reading_body(service):
        return await request.json()


@contextmanager
def reading_body(service: RunService) -> Iterator[None]:
    """Return a context in which the body of a request is read.

    The end of a shutdown cancels what still waits for a body. The context then raises `ServerDraining`, which answers
    503, in place of the cancellation.
    """
    try:
        yield
    except asyncio.CancelledError:
        if not service.draining:
            raise
        raise ServerDraining from None
