"""Errors as `application/problem+json` (RFC 9457), for clients that ask for it by `Accept`."""

from http import HTTPStatus
from typing import Any

from .connection import Connection
from .response import ErrorResponse, JSONResponse, Response

PROBLEM = "application/problem+json"
VARY = (b"vary", b"accept")
"""The header of every error whose format depends on `Accept`, so that no cache serves it to other clients (RFC 9110,
12.5.5)."""
_NAMED = PROBLEM.encode()

_REPLACED = (b"content-length", b"content-type")


def wants_problem(request: Connection) -> bool:
    """Return whether `Accept` names problem+json, and does not prefer `application/json` (RFC 9110, 12.5.1).

    `*/*` and the like are not enough, since other clients send them too.
    """
    for name, value in request.scope["headers"]:  # most clients do not ask for it, and this is the cheapest search
        if name == b"accept" and _NAMED in value.lower():
            break
    else:
        return False
    qualities = request.accepted_types()
    quality = qualities.get(PROBLEM, 0.0)
    return quality > 0 and quality >= qualities.get("application/json", 0.0)


def problem(error: ErrorResponse) -> Response:
    """Return the response to an error as problem+json, with its status, its headers and the fields of its content.

    A `detail` that is not a text, such as a list of faults, becomes the member `errors`, since RFC 9457 lets `detail`
    be a text only.
    """
    content: dict[str, Any] = {"type": "about:blank", "status": error.status, **_title(error.status), **error.content}
    if not isinstance(content["detail"], str):
        content["errors"] = content["detail"]
        content["detail"] = "The request is faulty: the member errors has the details."
    response = JSONResponse(content, error.status, {"content-type": PROBLEM})
    response.raw_headers += [pair for pair in error.raw_headers if pair[0] not in _REPLACED]
    response.names_connection = error.names_connection
    return response


def _title(status: int) -> dict[str, str]:
    """Return the member `title`; nothing for a status that is not a standard one."""
    try:
        return {"title": HTTPStatus(status).phrase}
    except ValueError:
        return {}
