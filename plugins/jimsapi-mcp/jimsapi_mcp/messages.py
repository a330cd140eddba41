"""JSON-RPC 2.0 messages of MCP: what a body contains, and how results and errors are answered."""

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

import msgspec
import orjson

from jimsapi.asgi import JSONResponse, Request, Response, ValidationError
from jimsapi.runs import RunService
from jimsapi.wire import Refusal, data_event, read_json, refusal_of, reworded

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
RESOURCE_NOT_FOUND = -32002
"""Only for clients of earlier versions; later ones get `INVALID_PARAMS`."""
HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

MAX_TEXT = 1024
"""Characters of an identifier or a progress token that the server repeats to the client."""
MAX_SHOWN = 100
"""Characters of a client's text that an error shows."""

_PRINTABLE = re.compile(r"[^\x20-\x7e]")

RequestId = str | int


class RpcError(Exception):
    """An error of a request. `status` is the HTTP status for clients of 2026-07-28; earlier ones get 200.

    With `always`, earlier clients get that status too: the request could not be read.
    """

    def __init__(self, code: int, message: str, data: Any = None, status: int = 400, *, always: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.status = status
        self.always = always


class RpcRequest(msgspec.Struct, frozen=True):
    """A request: it has an identifier, which its response repeats."""

    id: RequestId
    method: str
    params: Mapping[str, Any]


class RpcNotification(msgspec.Struct, frozen=True):
    """A message that gets no response."""

    method: str
    params: Mapping[str, Any]


class RpcResponse(msgspec.Struct, frozen=True):
    """A client's response to a request of the server. `result` is None if it is an error."""

    id: RequestId
    result: Mapping[str, Any] | None


Message = RpcRequest | RpcNotification | RpcResponse


async def read_message(request: Request, service: RunService) -> Message:
    """Read the message in the body of a request.

    Raises `RpcError` if it is none, `HTTPError` if the body is too large or is not declared as JSON, and
    `ServerDraining`.
    """
    try:
        value = await read_json(request, service)
    except ValidationError as fault:
        raise _unreadable(await request.body(), fault) from None
    return message_of(value)


def message_of(value: Any) -> Message:
    """Return the message that a JSON value is. Raises `RpcError` if it is none."""
    if isinstance(value, list):
        raise _invalid("Send one message in a request: batches are not supported")
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise _invalid('The body must be a JSON-RPC message: an object with "jsonrpc": "2.0"')
    has_id, method = "id" in value, value.get("method")
    if has_id and not is_name(value["id"]):
        raise _invalid(f"The id of a request must be an integer, or a text of at most {MAX_TEXT} characters")
    if method is None and has_id and ("result" in value or "error" in value):
        result = value.get("result")
        return RpcResponse(value["id"], result if isinstance(result, dict) else None)
    if not isinstance(method, str):
        raise _invalid("A message needs a method, which is a text")
    params = value.get("params", {})
    if not isinstance(params, dict):
        raise RefusedParams(value.get("id"), "The params of a message must be an object")
    return RpcRequest(value["id"], method, params) if has_id else RpcNotification(method, params)


class RefusedParams(RpcError):
    """An error of a message whose identifier is known although the message is not valid."""

    def __init__(self, request_id: RequestId | None, message: str) -> None:
        super().__init__(INVALID_PARAMS, message, always=True)
        self.request_id = request_id


def is_name(value: Any) -> TypeGuard[RequestId]:
    """Return whether a value may be the identifier of a request, or a progress token."""
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return isinstance(value, int) and not isinstance(value, bool)


def shown(text: str) -> str:
    """Return the beginning of a client's text as an error may show it."""
    return _PRINTABLE.sub("?", text[:MAX_SHOWN])


def _invalid(text: str) -> RpcError:
    return RpcError(INVALID_REQUEST, text, always=True)


def _unreadable(body: bytes, fault: ValidationError) -> RpcError:
    """Return the error for a body that is not JSON, or that has what no store could keep."""
    text = refusal_of(fault.status, {"detail": fault.detail}).text
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return RpcError(PARSE_ERROR, f"The body is not JSON: {text}", always=True)
    request_id = value.get("id") if isinstance(value, dict) else None
    return RefusedParams(request_id if is_name(request_id) else None, text)


def result_body(request_id: RequestId, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response with a result."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def error_body(request_id: RequestId | None, error: RpcError) -> dict[str, Any]:
    """Return the response with an error. The identifier is null if it could not be read (JSON-RPC 2.0, section 5)."""
    content: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        content["data"] = error.data
    return {"jsonrpc": "2.0", "id": request_id, "error": content}


def notification_event(method: str, params: Mapping[str, Any]) -> bytes:
    """Return a notification as a server-sent event."""
    return data_event({"jsonrpc": "2.0", "method": method, "params": params})


def request_event(request_id: str, method: str, params: Mapping[str, Any]) -> bytes:
    """Return a request of the server as a server-sent event."""
    return data_event({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def result_event(request_id: RequestId, result: Mapping[str, Any]) -> bytes:
    """Return the response with a result as a server-sent event."""
    return data_event(result_body(request_id, result))


def error_event(request_id: RequestId, error: RpcError) -> bytes:
    """Return the response with an error as a server-sent event."""
    return data_event(error_body(request_id, error))


def error_response(request_id: RequestId | None, error: RpcError, *, modern: bool) -> Response:
    """Return the HTTP response with an error."""
    return JSONResponse(error_body(request_id, error), error.status if modern or error.always else 200)


def in_rpc_form(answer: Response) -> Response:
    """Return an error of the server, such as 401 or 413, as a JSON-RPC error without an identifier."""
    return answer_in_rpc_form(None, answer)


def answer_in_rpc_form(request_id: RequestId | None, answer: Response) -> Response:
    """Return an error answer as a JSON-RPC error with the same status and headers."""

    def form(refusal: Refusal) -> dict[str, Any]:
        return error_body(request_id, RpcError(_code(refusal.status_code), refusal.text))

    return reworded(form, answer)


def _code(status: int) -> int:
    """Return the code for an HTTP status. JSON-RPC leaves positive codes to servers, so most are the status itself."""
    return {413: INVALID_REQUEST, 415: INVALID_REQUEST, 422: INVALID_PARAMS, 500: INTERNAL_ERROR}.get(status, status)
