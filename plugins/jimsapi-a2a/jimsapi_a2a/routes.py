"""The routes of the agent: its card, the JSON-RPC binding, and the HTTP+JSON binding."""

from typing import Any

from jimsapi.asgi import HTTPError, JSONResponse, Request, Response, Router
from jimsapi.plugins import Settings
from jimsapi.runs import CHAT, RunService
from jimsapi.wire import EVENT_STREAM
from jimsapi_a2a import A2AOptions, http, jsonrpc
from jimsapi_a2a.card import AGENT, KEYS, PATH, AgentCard, signer_of
from jimsapi_a2a.contexts import Contexts
from jimsapi_a2a.http import A2A_JSON, HttpBinding
from jimsapi_a2a.links import Links
from jimsapi_a2a.methods import Methods
from jimsapi_a2a.params import ConfigPage, ListTasks, SendMessage, TaskQuery
from jimsapi_a2a.push import PushNotifications
from jimsapi_a2a.tasks import Tasks

_ERRORS = {
    400: ("The request is not valid, or the task is in another state; `details` say why.", A2A_JSON),
    401: "The credentials are missing or wrong.",
    403: "The credentials do not allow this.",
    503: "The server or its store is not available now.",
}
_NO_TASK = {404: ("There is no such task, or it is another caller's.", A2A_JSON)}
_MESSAGE = {
    **_ERRORS,
    **_NO_TASK,
    409: ("The context is busy, and no message waits there.", A2A_JSON),
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    429: ("A limit of the caller is used up, or too many messages wait in the context.", A2A_JSON),
}
_STREAM = {200: ("The task, then its updates, as server-sent events.", EVENT_STREAM)}


def add_routes(router: Router, service: RunService, settings: Settings) -> None:
    """Add the routes. Raises `StartError` if an option is invalid."""
    options = settings.get(A2AOptions)
    links = Links(options.url)
    contexts = Contexts(service, options.contact_header)
    tasks = Tasks(service, contexts, links)
    push = PushNotifications(service, tasks, on=options.push == "on")
    signer = signer_of(options)
    card = AgentCard(service, router, options, links, push=push.is_supported, signer=signer)
    methods = Methods(service, contexts, tasks, push)

    @router.get(PATH, public=True, tags=("a2a",), responses={200: ("The agent card.", "application/json")})
    async def show_card(request: Request) -> Response:
        """Show the agent card, by which other agents find this one."""
        return card.response(request)

    if signer is not None:

        @router.get(KEYS, public=True, tags=("a2a",), responses={200: ("A JSON Web Key Set.", "application/json")})
        async def show_keys(request: Request) -> Response:
            """Show the public key of the signatures of the agent card."""
            return JSONResponse(signer.public_keys, headers={"access-control-allow-origin": "*"})

    @router.post(
        AGENT, scope=CHAT, resource=True, body=jsonrpc.Call, reword=jsonrpc.reword, tags=("a2a",),
        responses={
            200: ("The result or the error of a method, or a stream of results.", "application/json"),
            401: _ERRORS[401], 403: _ERRORS[403], 413: _MESSAGE[413], 415: _MESSAGE[415], 503: _ERRORS[503],
        },
    )  # fmt: skip
    async def call_method(request: Request) -> Response:
        """Call a method of A2A by JSON-RPC.

        The header `A2A-Version` must be `1.0`. The methods are `SendMessage`, `SendStreamingMessage`, `GetTask`,
        `ListTasks`, `CancelTask`, `SubscribeToTask`, those of push notifications and `GetExtendedAgentCard`.
        """
        return await jsonrpc.call(request, service, methods)

    @router.post(f"{AGENT}/", scope=CHAT, resource=True, reword=jsonrpc.reword, tags=("a2a",))
    async def call_method_below(request: Request) -> Response:
        """Do the same, for clients that add a slash to the URL of the card and follow no redirect."""
        return await jsonrpc.call(request, service, methods)

    add_http_routes(router, HttpBinding(service, methods))


def add_http_routes(router: Router, binding: HttpBinding) -> None:
    """Add the routes of the HTTP+JSON binding."""
    options: dict[str, Any] = {"scope": CHAT, "reword": http.reword, "tags": ("a2a",)}
    router.reword_below(AGENT, http.reword)
    tasks = f"{AGENT}/tasks"

    @router.post(f"{AGENT}/message:send", body=SendMessage, responses=_MESSAGE, **options)
    async def send_message(request: Request) -> Response:
        """Send a message, and wait until its task ends or needs input."""
        return await binding.call(request, "SendMessage", {}, needs_body=True)

    @router.post(f"{AGENT}/message:stream", body=SendMessage, responses={**_MESSAGE, **_STREAM}, **options)
    async def stream_message(request: Request) -> Response:
        """Send a message, and stream its task."""
        return await binding.call(request, "SendStreamingMessage", {}, needs_body=True)

    @router.get(tasks, query=ListTasks, responses=_ERRORS, **options)
    async def list_tasks(request: Request) -> Response:
        """List the caller's tasks, newest first."""
        return await binding.call(request, "ListTasks", {}, query=ListTasks)

    @router.get(f"{tasks}/{{id}}", query=TaskQuery, responses={**_ERRORS, **_NO_TASK}, **options)
    async def get_task(request: Request) -> Response:
        """Show a task. If `:subscribe` follows its identifier, stream it."""
        task_id, action = _action(request)
        if action == "subscribe":
            return await binding.call(request, "SubscribeToTask", {"id": task_id})
        _check_action(action, "")
        return await binding.call(request, "GetTask", {"id": task_id}, query=TaskQuery)

    @router.post(f"{tasks}/{{id}}", responses={**_ERRORS, **_NO_TASK, **_STREAM}, **options)
    async def act_on_task(request: Request) -> Response:
        """Cancel a task if `:cancel` follows its identifier, or stream it if `:subscribe` does."""
        task_id, action = _action(request)
        _check_action(action, "cancel", "subscribe")
        name = "CancelTask" if action == "cancel" else "SubscribeToTask"
        return await binding.call(request, name, {"id": task_id})

    configurations = f"{tasks}/{{id}}/pushNotificationConfigs"

    @router.post(configurations, responses={**_ERRORS, **_NO_TASK}, **options)
    async def create_push(request: Request) -> Response:
        """Add a configuration of push notifications to a task."""
        named = {"taskId": request.path_params["id"]}
        return await binding.call(request, "CreateTaskPushNotificationConfig", named, needs_body=True)

    @router.get(configurations, query=ConfigPage, responses={**_ERRORS, **_NO_TASK}, **options)
    async def list_push(request: Request) -> Response:
        """List the configurations of push notifications of a task."""
        named = {"taskId": request.path_params["id"]}
        return await binding.call(request, "ListTaskPushNotificationConfigs", named, query=ConfigPage)

    @router.get(f"{configurations}/{{config_id}}", responses={**_ERRORS, **_NO_TASK}, **options)
    async def get_push(request: Request) -> Response:
        """Show a configuration of push notifications of a task."""
        return await binding.call(request, "GetTaskPushNotificationConfig", _configuration(request))

    @router.delete(f"{configurations}/{{config_id}}", responses={**_ERRORS, **_NO_TASK}, **options)
    async def delete_push(request: Request) -> Response:
        """Delete a configuration of push notifications of a task."""
        return await binding.call(request, "DeleteTaskPushNotificationConfig", _configuration(request))

    @router.get(f"{AGENT}/extendedAgentCard", responses=_ERRORS, **options)
    async def extended_card(request: Request) -> Response:
        """Refuse: the public agent card is the only one."""
        return await binding.call(request, "GetExtendedAgentCard", {})


def _action(request: Request) -> tuple[str, str]:
    """Return the identifier of the task in a path, and what follows it after a colon."""
    name, _, action = str(request.path_params["id"]).partition(":")
    return name, action


def _check_action(action: str, *known: str) -> None:
    """Raise `HTTPError` 404 if a path names an action that its method does not have."""
    if action not in known:
        raise HTTPError(404, f"There is no such action of a task: {action[:100]!r}")


def _configuration(request: Request) -> dict[str, Any]:
    return {"taskId": request.path_params["id"], "id": request.path_params["config_id"]}
