"""A call of a tool, as a request has it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from jimsapi.asgi import Request
from jimsapi.threads import TraceContext
from jimsapi_mcp.eras import Client
from jimsapi_mcp.messages import INVALID_PARAMS, RequestId, RpcError, RpcRequest, is_name
from jimsapi_mcp.states import digest_of, read_state


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool.

    `inputs` and `state` are there if the client repeats a call with what a person has entered. `streams`: the client
    accepts a stream of events.
    """

    id: RequestId
    tool: str
    arguments: Mapping[str, Any]
    client: Client
    token: RequestId | None
    inputs: Mapping[str, Any]
    state: Any
    trace_context: TraceContext | None
    streams: bool

    @property
    def client_id(self) -> str | None:
        """What the message of an earlier client's call is known by, so that every process can cancel it."""
        return client_id_of(self.client, self.id)

    @property
    def notified(self) -> int:
        """How many notifications of progress the call has sent before it was repeated."""
        state = read_state(self.state)
        return 0 if state is None else state.notified

    @property
    def digest(self) -> str:
        """What tells the call from others, for a state."""
        return digest_of(self.tool, self.arguments)


def tool_call_of(request: Request, client: Client, call: RpcRequest) -> ToolCall:
    """Return the call of a tool in a request. Raises `RpcError` if it is not a valid one."""
    name, arguments = call.params.get("name"), call.params.get("arguments")
    if not isinstance(name, str):
        raise RpcError(INVALID_PARAMS, "The name of a tool must be a text")
    if arguments is not None and not isinstance(arguments, dict):
        raise RpcError(INVALID_PARAMS, "The arguments of a tool must be an object")
    inputs = call.params.get("inputResponses") if client.modern else None
    state = call.params.get("requestState") if client.modern else None
    if inputs is not None and not isinstance(inputs, dict):
        raise RpcError(INVALID_PARAMS, "inputResponses must be an object")
    given = call.params.get("_meta")
    meta = given if isinstance(given, Mapping) else {}
    token = meta.get("progressToken")
    return ToolCall(
        id=call.id,
        tool=name,
        arguments=arguments or {},
        client=client,
        token=token if is_name(token) else None,
        inputs=inputs or {},
        state=state,
        trace_context=trace_context_of(call.params),
        streams="text/event-stream" in (request.headers.get("accept") or "").lower(),
    )


def trace_context_of(params: Mapping[str, Any]) -> TraceContext | None:
    """Return the trace that a request continues, from its metadata; None if it names none."""
    meta = params.get("_meta")
    return TraceContext.parse(meta.get("traceparent"), meta.get("tracestate")) if isinstance(meta, Mapping) else None


def client_id_of(client: Client, request_id: RequestId) -> str | None:
    """Return what stands for a request among all requests; None for a client without a session."""
    return None if client.session is None else f"{client.session} {request_id!r}"
