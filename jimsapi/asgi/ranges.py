"""Conditional requests (RFC 9110, 13) and requests for a range of bytes (RFC 9110, 14), for content of a known size."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

from .connection import Connection, Request
from .errors import HTTPError

__all__ = ["Selection", "check_match", "client_has", "select_range"]

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a content that answers a request: the bytes from `begin` to before `end`.

    `status` is 200 for the whole content, 206 for a range, and 304 without any bytes if the client has the content.
    `headers` have `ETag`, `Last-Modified`, `Accept-Ranges` and, for a range, `Content-Range`.
    """

    status: int
    begin: int
    end: int
    headers: Mapping[str, str]


def select_range(request: Request, *, tag: str, modified: float, size: int) -> Selection:
    """Return the part of a content that answers a GET or HEAD request.

    `tag` is the content's `ETag` with its quotes, `modified` the time of its last change in seconds since 1970, and
    `size` its length in bytes. A request for several ranges gets the whole content, and so does one with an `If-Range`
    that is not the tag.

    Raises `HTTPError` 416 for a range after the end of the content, and 412 as `check_match` does.
    """
    check_match(request, tag=tag, modified=modified)
    headers = {"etag": tag, "last-modified": formatdate(modified, usegmt=True), "accept-ranges": "bytes"}
    if _is_unchanged(request, tag, modified):
        return Selection(304, 0, 0, headers)
    selected = _range(request, tag, size)
    if selected is None:
        return Selection(200, 0, size, headers)
    begin, end = selected
    return Selection(206, begin, end, {**headers, "content-range": f"bytes {begin}-{end - 1}/{size}"})


def check_match(request: Request, *, tag: str, modified: float) -> None:
    """Raise `HTTPError` 412 if a request is for another version of the content (`If-Match`, `If-Unmodified-Since`).

    `tag` and `modified` are those of `select_range`, which calls this. A handler that changes or deletes the content
    calls it first.
    """
    if wanted := request.headers.getlist("if-match"):
        tags = [each.strip() for each in ",".join(wanted).split(",")]
        if tag not in tags and tags != ["*"]:
            raise HTTPError(412, "If-Match does not name the present version")
        return
    try:
        limit = parsedate_to_datetime(request.headers.get("if-unmodified-since") or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return
    if int(modified) > limit:
        raise HTTPError(412, "The content has changed since the time of If-Unmodified-Since")


def client_has(request: Connection, tag: str) -> bool | None:
    """Return whether `If-None-Match` names the version of the content whose `ETag` is `tag` (RFC 9110, 13.1.2).

    It is None for a request without that header, whose `If-Modified-Since` then counts.
    """
    known = request.headers.getlist("if-none-match")
    if not known:
        return None
    tags = [each.strip().removeprefix("W/") for each in ",".join(known).split(",")]
    return tag in tags or tags == ["*"]


def _is_unchanged(request: Request, tag: str, modified: float) -> bool:
    """Return whether the client has this version of the content (RFC 9110, 13.2.2)."""
    known = client_has(request, tag)
    if known is not None:
        return known
    try:
        return int(modified) <= parsedate_to_datetime(request.headers.get("if-modified-since") or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return False


def _range(request: Request, tag: str, size: int) -> tuple[int, int] | None:
    """Return begin and end of the range that the client asks for; None for the whole content."""
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
