"""Push notifications (specification, sections 3.1.7 to 3.1.10). This version of the agent has none."""

from typing import Any

from jimsapi.asgi import Request
from jimsapi_a2a.errors import PUSH_NOT_SUPPORTED, A2AError
from jimsapi_a2a.params import SendMessage
from jimsapi_a2a.replies import Reply


class PushNotifications:
    """The configurations of push notifications. `is_supported` is in the agent card."""

    is_supported = False

    def check(self, request: Request, body: SendMessage) -> None:
        """Check the configuration that comes with a message, before its run begins. Raises `A2AError`."""
        if body.configuration is not None and body.configuration.task_push_notification_config:
            raise _not_supported()

    async def begun(self, request: Request, body: SendMessage, task_id: str) -> None:
        """Store the configuration that came with a message. A thread has accepted the message, or will."""

    async def create(self, request: Request, params: Any) -> Reply:
        """`CreateTaskPushNotificationConfig`."""
        raise _not_supported()

    async def get(self, request: Request, params: Any) -> Reply:
        """`GetTaskPushNotificationConfig`."""
        raise _not_supported()

    async def list(self, request: Request, params: Any) -> Reply:
        """`ListTaskPushNotificationConfigs`."""
        raise _not_supported()

    async def delete(self, request: Request, params: Any) -> Reply:
        """`DeleteTaskPushNotificationConfig`."""
        raise _not_supported()


def _not_supported() -> A2AError:
    return A2AError(PUSH_NOT_SUPPORTED, "This agent sends no push notifications: poll the task, or subscribe to it")
