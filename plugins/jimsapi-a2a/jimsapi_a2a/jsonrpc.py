"""The JSON-RPC binding (specification, section 9): one path, and the name of the method in the body."""

from typing import Any, Literal

import msgspec
import orjson

from jimsapi.asgi import ErrorResponse, HTTPError, Request, Response, ValidationError
from jimsapi.runs import RunService
from jimsapi.threads import DomainError
from jimsapi.wire import read_json
from jimsapi_a2a.encoding import Binding, Encoder, json_response, with_headers
from jimsapi_a2a.errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    A2AError,
    of_answer,
)
from jimsapi_a2a.methods import Methods, check_version
from jimsapi_a2a.parts import JSON

MAX_ID = 255
"""Characters of the identifier of a request."""
RequestId = str | int | float | None
"""The identifier of a request; None if it has none that an answer can repeat."""


class Call(msgspec.Struct):
    """A request of JSON-RPC 2.0, for the OpenAPI document."""

    jsonrpc: Literal["2.0"]
    id: str | int
    method: str
    params: dict[str, Any] | None = None


async def call(request: Request, service: RunService, methods: Methods) -> Response:
    """Answer a request. The errors of methods have the status 200, because clients read no body of another status.

    Raises `HTTPError` if the body is not JSON by its content type or is too long.
    """
    request_id: RequestId = None
    try:
        try:
            body = await _read(request, service)
        except ValidationError:  # it is JSON that no store accepts
            request_id = await _id_of_unstorable(request)
            raise
        request_id = _id_of(body)
        name = _method_of(body, request_id)
        check_version(request)
        method = methods.table.get(name)
        if method is None:
            raise A2AError(METHOD_NOT_FOUND, f"There is no method {name[:100]!r}")
        params = body.get("params")
        params = {} if params is None else params
        if not isinstance(params, dict):
            raise A2AError(INVALID_PARAMS, "params must be an object")
        reply = await method(request, params)
    except HTTPError as error:
        if error.status in (413, 415):
            raise
        return Encoder(request, service, _binding(request_id)).error(error)
    except (A2AError, DomainError) as error:
        return Encoder(request, service, _binding(request_id)).error(error)
    return Encoder(request, service, _binding(request_id)).response(reply)


def _binding(request_id: RequestId) -> Binding:
    """Return how the answers to a request with this identifier are encoded."""
    head = {"jsonrpc": "2.0", "id": request_id}
    return Binding(JSON, lambda value: {**head, "result": value}, lambda error: {**head, "error": error.in_json_rpc()})


async def _read(request: Request, service: RunService) -> dict[str, Any]:
    """Return the body of a request. Raises `A2AError` if it is no request of JSON-RPC, and `HTTPError`."""
    try:
        body = await read_json(request, service)
    except ValidationError as error:
        if any(fault["type"] in ("json_invalid", "missing") for fault in error.faults):
            text = of_answer(error.status, {"detail": error.faults}).text
            raise A2AError(PARSE_ERROR, f"The body is not JSON: {text}") from None
        raise
    if isinstance(body, list):
        raise A2AError(INVALID_REQUEST, "A2A has no batches: send each request alone")
    if not isinstance(body, dict):
        raise A2AError(INVALID_REQUEST, "A request is an object")
    return body


async def _id_of_unstorable(request: Request) -> RequestId:
    """Return the identifier of a request whose body has a NUL, for example."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        return None
    return _id_of(body) if isinstance(body, dict) else None


def _id_of(body: dict[str, Any]) -> RequestId:
    """Return the identifier of a request; None if it has none that an answer can repeat."""
    request_id = body.get("id")
    is_short = not isinstance(request_id, str) or len(request_id) <= MAX_ID
    is_id = isinstance(request_id, str | int | float) and not isinstance(request_id, bool)
    return request_id if is_id and is_short else None


def _method_of(body: dict[str, Any], request_id: RequestId) -> str:
    if body.get("jsonrpc") != "2.0":
        raise A2AError(INVALID_REQUEST, 'A request has "jsonrpc": "2.0"')
    if request_id is None:
        text = f"A request has an id: a text of up to {MAX_ID} characters, or a number. A2A has no notifications"
        raise A2AError(INVALID_REQUEST, text)
    name = body.get("method")
    if not isinstance(name, str) or not name:
        raise A2AError(INVALID_REQUEST, "A request has the name of a method")
    return name


def reword(answer: Response) -> Response:
    """Return an error that comes before a method, such as 401, in the form of JSON-RPC, with its own status."""
    content = answer.content if isinstance(answer, ErrorResponse) else orjson.loads(answer.body or b"{}")
    headers = [pair for pair in answer.raw_headers if pair[0] not in (b"content-length", b"content-type")]
    error = of_answer(answer.status, content, headers)
    response = with_headers(json_response(_binding(None).wrap_error(error), answer.status, JSON), error)
    response.names_connection = answer.names_connection
    return response
