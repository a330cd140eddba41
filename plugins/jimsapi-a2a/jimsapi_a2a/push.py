"""Push notifications (A2A 1.0, sections 3.1.7 to 3.1.10 and 4.3): configurations of tasks, and the calls of receivers.

A configuration is a subscription to the run of the task, which the store keeps. Its receiver is called when the task
has ended, and when it needs input, with the task as the stream shows it. The rules of webhooks apply: only public
addresses (unless `--webhook-allow-private`), retries, and a signature if the server has a secret.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import orjson

from jimsapi.asgi import Request
from jimsapi.runs import Admission, Notice, RunService
from jimsapi.threads import RunNotFound, Subscription, ThreadNotFound, derived_id, uuid7
from jimsapi_a2a.errors import INVALID_PARAMS, PUSH_NOT_SUPPORTED, TASK_NOT_FOUND, A2AError, invalid
from jimsapi_a2a.params import SendMessage
from jimsapi_a2a.replies import Reply
from jimsapi_a2a.tasks import INPUT_REQUIRED, TERMINAL, Task, Tasks

KIND = "a2a"
FIELD = "configuration.taskPushNotificationConfig"
MAX_CONFIGS = 10
"""The most configurations of a task."""
MAX_ID = 255
MAX_SECRET = 8_192
"""Characters of a token, and of credentials."""
TOKEN_HEADER = "x-a2a-notification-token"
"""The header of `token`. The specification does not name one; this is the one of the official SDKs."""

_SCHEME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # a token (RFC 9110, section 5.6.2)
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")  # a header's value, in ASCII


class PushConfig(msgspec.Struct, frozen=True):
    """A configuration that has been checked. `id` is empty if the client gave none."""

    id: str
    url: str
    token: str
    scheme: str
    credentials: str

    def __repr__(self) -> str:
        return f"PushConfig({self.id!r})"

    def shown(self, task_id: str) -> dict[str, Any]:
        """Return the `TaskPushNotificationConfig`, for the caller that made it."""
        shown: dict[str, Any] = {"id": self.id, "taskId": task_id, "url": self.url}
        if self.token:
            shown["token"] = self.token
        if self.scheme:
            shown["authentication"] = {"scheme": self.scheme}
            if self.credentials:
                shown["authentication"]["credentials"] = self.credentials
        return shown

    def headers(self) -> dict[str, str]:
        """Return the headers by which the receiver knows the sender."""
        headers = {"content-type": "application/a2a+json"}
        if self.scheme and self.credentials:
            headers["authorization"] = f"{self.scheme} {self.credentials}"
        if self.token:
            headers[TOKEN_HEADER] = self.token
        return headers


class PushNotifications:
    """The methods of push notifications, and the notifier of the subscriptions that they make.

    `on`: callers may have receivers. If not, no receiver is called either that the store has from earlier.
    """

    kind = KIND

    def __init__(self, service: RunService, tasks: Tasks, *, on: bool = True) -> None:
        self._service = service
        self._tasks = tasks
        self._on = on
        if on:
            service.use_notifier(self)

    @property
    def is_supported(self) -> bool:
        """Whether callers may have receivers, and the store keeps them. It is in the agent card."""
        return self._on and self._service.subscriptions.is_supported

    async def check(self, request: Request, body: SendMessage, task: Task | None) -> None:
        """Check the configuration that comes with a message, before its run begins. `task` is the task that it answers.

        Raises `A2AError`, or `InputRefused` for its URL.
        """
        given = _given(body)
        if given is None:
            return
        config = await self._checked(given, FIELD)
        if task is None:
            return
        name = _name(request, _identified(config, task.id).id)
        found = await self._service.subscriptions.of_run(UUID(task.id), KIND)
        if len(found) >= MAX_CONFIGS and all(each.name != name for each in found):
            raise _too_many(task.id)

    async def begun(self, request: Request, body: SendMessage, task_id: str) -> None:
        """Store the configuration that came with a message that a thread has accepted.

        A message that is repeated has it once. If the task is over, the receiver is told so again.
        Raises `A2AError` or `StoreUnavailable`.
        """
        given = _given(body)
        if given is None:
            return
        config = _identified(await self._checked(given, FIELD), task_id)
        try:
            task = await self._tasks.current(UUID(task_id))
            if task.state in TERMINAL or config not in await self._own(request, UUID(task_id)):
                await self._add(request, UUID(task_id), task.thread_id, config)
        except (RunNotFound, ThreadNotFound):  # it was deleted meanwhile
            return

    async def create(self, request: Request, params: Any) -> Reply:
        """`CreateTaskPushNotificationConfig`. A configuration with the same `id` is replaced.

        It counts as a message of the caller's limits, because it makes the server call somebody. It may do so again and
        again for a task that has ended.
        """
        task = await self._task(request, params)
        config = await self._checked(params, "")
        self._service.count_message(cast(Admission, request.admission), task.contact_id or "")
        if not config.id:
            config = msgspec.structs.replace(config, id=str(uuid4()))
        await self._add(request, UUID(task.id), task.thread_id, config)
        return Reply(config.shown(task.id))

    async def get(self, request: Request, params: Any) -> Reply:
        """`GetTaskPushNotificationConfig`."""
        task = await self._task(request, params)
        wanted = _text(params, "id", "")
        for config in await self._own(request, UUID(task.id)):
            if config.id == wanted:
                return Reply(config.shown(task.id))
        text = f"The task {task.id} has no push notification configuration {wanted[:100]!r} of this caller"
        raise A2AError(TASK_NOT_FOUND, text, metadata={"taskId": task.id})

    async def list_all(self, request: Request, params: Any) -> Reply:
        """`ListTaskPushNotificationConfigs`: those of the caller, in the order of their identifiers."""
        task = await self._task(request, params)
        after = _text(params, "pageToken", "") or _text(params, "page_token", "")
        size = params.get("pageSize") or params.get("page_size") or MAX_CONFIGS
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise invalid("pageSize", "should be a whole number above 0")
        rest = [config for config in await self._own(request, UUID(task.id)) if config.id > after]
        page = rest[:size]
        more = page[-1].id if len(rest) > len(page) else ""
        return Reply({"configs": [config.shown(task.id) for config in page], "nextPageToken": more})

    async def delete(self, request: Request, params: Any) -> Reply:
        """`DeleteTaskPushNotificationConfig`. It succeeds also if there is no such configuration."""
        task = await self._task(request, params)
        name = _name(request, _text(params, "id", ""))
        await self._service.subscriptions.remove(UUID(task.id), KIND, name)
        return Reply({})

    async def notice(self, subscription: Subscription) -> Notice | None:
        """Return what the receiver of a task should know now, as `Notifier.notice` describes."""
        try:
            task = await self._tasks.current(subscription.run_id)
        except ThreadNotFound:
            raise RunNotFound(subscription.run_id) from None
        state = task.state
        ended = state in TERMINAL
        if not ended and state != INPUT_REQUIRED:
            return None
        config = _config(subscription)
        # A task may need input several times, and each time another run has asked.
        key = state if ended else f"{state} {task.newest.run_id}"
        body = orjson.dumps({"task": await self._tasks.show(None, task, 0)})
        return Notice(key, config.url, body, config.headers(), last=ended)

    async def _task(self, request: Request, params: Any) -> Task:
        self._require_support()
        if not isinstance(params, Mapping):
            raise invalid("params", "should be an object")
        # The JSON form of Protocol Buffers has a second name for each field, and some clients send it.
        task_id = _text(params, "taskId", "") or _text(params, "task_id", "")
        if not task_id:
            raise invalid("taskId", "is required")
        return await self._tasks.find(request, task_id)

    async def _checked(self, given: Mapping[str, Any], field: str) -> PushConfig:
        """Return a configuration, the value of `field` in a request. Raises `A2AError` or `InputRefused`."""
        self._require_support()
        authentication = given.get("authentication") or {}
        if not isinstance(authentication, Mapping):
            raise invalid(_path(field, "authentication"), "should be an object")
        within = _path(field, "authentication")
        config = PushConfig(
            id=_text(given, "id", field),
            url=_text(given, "url", field),
            token=_header_value(given, "token", field),
            scheme=_text(authentication, "scheme", within),
            credentials=_header_value(authentication, "credentials", within),
        )
        if len(config.id) > MAX_ID or not config.id.isprintable():
            raise invalid(_path(field, "id"), f"should have at most {MAX_ID} printable characters")
        if config.scheme and not _SCHEME.fullmatch(config.scheme):
            raise invalid(_path(within, "scheme"), "should be the name of an authentication scheme of HTTP")
        if config.credentials and not config.scheme:
            raise invalid(_path(within, "scheme"), "should name the scheme of the credentials")
        await self._service.subscriptions.check(config.url, _path(field, "url"))
        return config

    async def _add(self, request: Request, task_id: UUID, thread_id: UUID, config: PushConfig) -> None:
        name, data = _name(request, config.id), msgspec.json.encode(config)
        subscription = Subscription(uuid7(), task_id, thread_id, KIND, name, _caller(request), data)
        if not await self._service.subscriptions.add(subscription, MAX_CONFIGS):
            raise _too_many(str(task_id))

    async def _own(self, request: Request, task_id: UUID) -> Sequence[PushConfig]:
        """Return the configurations of a task that the caller has made. Those of others have their secrets."""
        mine = _name(request, "")
        found = await self._service.subscriptions.of_run(task_id, KIND)
        configs = [_config(each) for each in found if each.name.startswith(mine)]
        return sorted(configs, key=lambda config: config.id)

    def _require_support(self) -> None:
        if not self._on:
            raise A2AError(PUSH_NOT_SUPPORTED, "This server sends no push notifications")
        if not self.is_supported:
            raise A2AError(PUSH_NOT_SUPPORTED, "The store of this server keeps no push notification configurations")


def _given(body: SendMessage) -> Mapping[str, Any] | None:
    return None if body.configuration is None else body.configuration.task_push_notification_config or None


def _identified(config: PushConfig, task_id: str) -> PushConfig:
    """Return a configuration of a message. Without an identifier it gets one, the same if the message is repeated."""
    if config.id:
        return config
    parts = (config.url, config.token, config.scheme, config.credentials)
    return msgspec.structs.replace(config, id=str(derived_id(KIND, task_id, *parts)))


def _too_many(task_id: str) -> A2AError:
    text = f"The task {task_id} has {MAX_CONFIGS} push notification configurations; delete one of them first"
    return A2AError(INVALID_PARAMS, text, violations=[("id", text)])


def _name(request: Request, config_id: str) -> str:
    """Return the name of a subscription, so that callers that see the same task do not replace each other's."""
    return f"{_caller(request).hex}/{config_id}"


def _caller(request: Request) -> UUID:
    admission = cast(Admission, request.admission)
    return derived_id(KIND, admission.provider or "", admission.identity.subject)


def _config(subscription: Subscription) -> PushConfig:
    return msgspec.json.decode(subscription.data, type=PushConfig)


def _text(given: Mapping[str, Any], name: str, field: str) -> str:
    """Return a field that is a text; "" if it is missing, which is the same in A2A."""
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid(_path(field, name), "should be a text")
    if "\0" in value or not _is_unicode(value):
        raise invalid(_path(field, name), "should be valid Unicode without the character NUL")
    return value


def _path(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _header_value(given: Mapping[str, Any], name: str, field: str) -> str:
    value = _text(given, name, field)
    if value and (len(value) > MAX_SECRET or not _VALUE.fullmatch(value)):
        raise invalid(_path(field, name), f"should have at most {MAX_SECRET} characters of ASCII, for a header")
    return value
