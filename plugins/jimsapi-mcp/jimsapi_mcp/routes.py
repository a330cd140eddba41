"""The route of the MCP server."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec

from jimsapi.asgi import Cors, HTTPError, Request, Response, Router
from jimsapi.runs import CHAT, RunService
from jimsapi.threads import DomainError
from jimsapi.wire import EVENT_STREAM, REFUSALS, error_answer
from jimsapi_mcp.eras import is_modern
from jimsapi_mcp.messages import (
    RefusedParams,
    RpcError,
    RpcRequest,
    answer_in_rpc_form,
    error_response,
    in_rpc_form,
    read_message,
)
from jimsapi_mcp.origins import refuse_foreign_origin
from jimsapi_mcp.server import McpServer
from jimsapi_mcp.tools import Tools

if TYPE_CHECKING:
    from jimsapi_mcp import McpOptions


class McpMessage(msgspec.Struct):
    """A JSON-RPC message of MCP. A request has an `id`, and so has a response, which has no `method`."""

    jsonrpc: str
    method: str | None = None
    id: str | int | None = None
    params: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


def add_routes(router: Router, service: RunService, options: "McpOptions", cors_origins: Collection[str]) -> None:
    """Add the route. `cors_origins` are the origins of pages that may use the server."""
    tools = Tools(service, options.tool, options.title, options.description)
    secret = None if options.secret is None else options.secret.reveal()
    server = McpServer(service, tools, options.contact_header, secret, options.form_wait)
    cors = Cors(cors_origins)

    @router.post(
        options.path, scope=CHAT, resource=True, body=McpMessage, reword=in_rpc_form, cancel_on_disconnect=True,
        tags=("mcp",),
        responses={
            **REFUSALS,
            200: ("A JSON-RPC response, or the events of a call that end with it.", EVENT_STREAM),
            202: "A notification or a response of the client was accepted.",
            400: "The message is not a valid one.",
            404: "There is no such method.",
            409: "The thread is busy, and no message waits there.",
            500: "The server failed.",
        },
    )  # fmt: skip
    async def mcp(request: Request) -> Response:
        """Answer a message of an MCP client (streamable HTTP).

        The pipeline is the tool `chat`, and threads are resources. Clients of 2026-07-28 need no session; earlier ones
        begin with `initialize`. If a client of 2026-07-28 disconnects, its call is cancelled.
        """
        refuse_foreign_origin(request, cors)
        message_id = None
        modern = False
        try:
            message = await read_message(request, service)
            if isinstance(message, RpcRequest):
                message_id = message.id
                modern = is_modern(request, message.method, message.params)
            return await server.answer(request, message)
        except RpcError as error:
            if isinstance(error, RefusedParams):
                message_id = error.request_id
            return error_response(message_id, error, modern=modern)
        except (DomainError, HTTPError) as error:
            return answer_in_rpc_form(message_id, error_answer(request, error))
