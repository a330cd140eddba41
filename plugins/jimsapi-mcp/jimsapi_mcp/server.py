"""The MCP server: which method of which era is answered how."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from jimsapi.asgi import JSONResponse, Request, Response
from jimsapi.runs import RunService
from jimsapi.threads import DomainError, Question, RunNotFound, StoredRun
from jimsapi.wire import error_content, refusal_of
from jimsapi_mcp.asking import DECLINING, Asking
from jimsapi_mcp.calls import Calls
from jimsapi_mcp.conclusions import Conclusions
from jimsapi_mcp.eras import (
    MODERN,
    SESSION_HEADER,
    TASKS,
    Client,
    agreed_version,
    is_modern,
    legacy_client,
    modern_client,
    new_session,
)
from jimsapi_mcp.messages import (
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    Message,
    RpcError,
    RpcNotification,
    RpcRequest,
    RpcResponse,
    is_name,
    result_body,
    shown,
)
from jimsapi_mcp.people import People
from jimsapi_mcp.resources import Resources
from jimsapi_mcp.sessions import FormResponse, OpenCalls, Reaction
from jimsapi_mcp.states import States
from jimsapi_mcp.tasks import Tasks
from jimsapi_mcp.tool_call import tool_call_of
from jimsapi_mcp.tools import Tools
from jimsapi_mcp.turns import Turns

LISTS_FRESH_FOR = 300_000
"""Milliseconds for which a client may keep a list that changes only when the server starts anew."""

_CAPABILITIES: dict[str, Any] = {"tools": {}, "resources": {}}
_FIXED = {"ttlMs": LISTS_FRESH_FOR, "cacheScope": "private"}
_CHANGING = {"ttlMs": 0, "cacheScope": "private"}


class McpServer:
    """Answers the messages of clients."""

    def __init__(
        self,
        service: RunService,
        tools: Tools,
        contact_header: str | None,
        secret: str | None,
        form_wait: float,
    ) -> None:
        people, states = People(service, contact_header), States(secret)
        self._tools = tools
        self._info = {"name": tools.title, "version": version("jimsapi-mcp")}
        self._asking = Asking(service, people, states)
        self._turns = Turns(service, people)
        self._open_calls = OpenCalls(service.limits.max_runs)
        self._conclusions = Conclusions(service, people, self._asking, tools, states, self._info)
        self._calls = Calls(self._conclusions, self._turns, self._open_calls, tools, states, form_wait)
        self._resources = Resources(service, people)
        self._tasks = Tasks(self._conclusions, self._turns)

    async def answer(self, request: Request, message: Message) -> Response:
        """Return the response to a message. Raises `RpcError`, and the errors of `Calls.call`."""
        match message:
            case RpcRequest():
                if is_modern(request, message.method, message.params):
                    return await self._answer_modern(request, message, modern_client(request, message))
                return await self._answer_legacy(request, message)
            case RpcNotification():
                await self._notice(request, message)
            case RpcResponse():
                await self._take_response(request, message)
        return Response(status=202, content_type=None)

    async def _answer_modern(self, request: Request, message: RpcRequest, client: Client) -> Response:
        params = message.params
        match message.method:
            case "server/discover":
                capabilities = {**_CAPABILITIES, "extensions": {TASKS: {}}}
                discovered = {"supportedVersions": list(MODERN), "capabilities": capabilities}
                result = {**discovered, "instructions": self._tools.description, **_FIXED}
            case "tasks/get":
                result = await self._tasks.get(request, client, params)
            case "tasks/update":
                result = await self._tasks.update(request, client, params)
            case "tasks/cancel":
                result = await self._tasks.cancel(request, client, params)
            case _:
                return await self._answer_any(request, message, client)
        return self._response(message, client, result)

    async def _answer_legacy(self, request: Request, message: RpcRequest) -> Response:
        if message.method == "initialize":
            return self._initialize(message)
        client = legacy_client(request)
        if message.method == "ping":
            return self._response(message, client, {})
        return await self._answer_any(request, message, client)

    async def _answer_any(self, request: Request, message: RpcRequest, client: Client) -> Response:
        """Answer a request that both eras have."""
        fresh = _FIXED
        match message.method:
            case "tools/call":
                return await self._calls.call(request, tool_call_of(request, client, message))
            case "tools/list":
                result: dict[str, Any] = {"tools": self._tools.listed()}
            case "resources/templates/list":
                result = {"resourceTemplates": self._resources.templates()}
            case "resources/list":
                result, fresh = await self._resources.listed(request, message.params), _CHANGING
            case "resources/read":
                result, fresh = await self._resources.read(request, client, message.params), _CHANGING
            case _:
                raise RpcError(METHOD_NOT_FOUND, f"Method not found: {shown(message.method)}", status=404)
        return self._response(message, client, {**result, **fresh} if client.modern else result)

    def _response(self, message: RpcRequest, client: Client, result: Mapping[str, Any]) -> Response:
        return JSONResponse(result_body(message.id, self._conclusions.finished(client, result)))

    def _initialize(self, message: RpcRequest) -> Response:
        result = {
            "protocolVersion": agreed_version(message.params),
            "capabilities": _CAPABILITIES,
            "serverInfo": self._info,
            "instructions": self._tools.description,
        }
        # A page of another origin may read the header only if the response says so (Fetch Standard, section 3.2.2).
        headers = {SESSION_HEADER: new_session(message.params), "access-control-expose-headers": SESSION_HEADER}
        return JSONResponse(result_body(message.id, result), headers=headers)

    async def _notice(self, request: Request, message: RpcNotification) -> None:
        """Handle a notification: the cancellation of an earlier client's call. Others are ignored."""
        if message.method != "notifications/cancelled" or is_modern(request, message.method, message.params):
            return
        request_id = message.params.get("requestId")
        if is_name(request_id):
            client = legacy_client(request)
            calls = self._open_calls.find(request, client, request_id)
            for call in calls:
                await self._calls.cancel_open(request, call)
            if not calls:
                await self._calls.cancel_elsewhere(request, client, request_id)

    async def _take_response(self, request: Request, response: RpcResponse) -> None:
        """Take what a person has entered in a form of an earlier client's call, which may wait in another process."""
        form_id = str(response.id)
        try:
            asked = await self._asking.asked_by(request, form_id)
        except RunNotFound:
            asked = None
        if asked is None:
            raise RpcError(INVALID_REQUEST, "The server has not sent a request with this id", always=True)
        run, question = asked
        if question is None:  # it was answered meanwhile, which the call finds out itself
            return
        self._open_calls.receive(form_id)
        reaction = FormResponse(Reaction.REFUSED, "Internal Server Error")
        try:
            reaction = await self._react(request, run, question, response.result or {"action": "cancel"})
        finally:
            is_here = self._open_calls.respond(form_id, reaction)
        if not is_here and reaction.reaction in (Reaction.INVALID, Reaction.DISMISSED, Reaction.REFUSED):
            await self._asking.pass_on(request, run, form_id, reaction)

    async def _react(
        self, request: Request, run: StoredRun, question: Question, response: Mapping[str, Any]
    ) -> FormResponse:
        """Do what a person has entered in a form, and return what it means for the call that waits."""
        entered = self._asking.entered([question], {str(question.question_id): response})
        if entered.again:
            return FormResponse(Reaction.INVALID, entered.again[question.question_id])
        if entered.declined:
            await self._asking.close(request, run, DECLINING)
            return FormResponse(Reaction.DECLINED)
        if entered.dismissed:
            return FormResponse(Reaction.DISMISSED)
        try:
            await self._turns.answer(request, run, entered.answers)
        except DomainError as error:
            content = error_content(request, error)
            return FormResponse(Reaction.REFUSED, refusal_of(content.status, content.content).text)
        return FormResponse(Reaction.ANSWERED)
