"""The endpoint of the chat component Deep Chat."""

from jimsapi import Options, Router, hookimpl, option
from jimsapi.plugins import Settings
from jimsapi.runs import RunService


class DeepChatOptions(Options, prefix="deepchat"):
    """Options of /deep-chat."""

    contact_header: str | None = option(help="The header in which clients of /deep-chat name the contact.")
    thread_header: str | None = option(help="The header in which clients of /deep-chat name the conversation.")


@hookimpl
def jimsapi_options() -> type[Options]:
    return DeepChatOptions


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> None:
    from jimsapi_deepchat.routes import add_routes

    options = settings.get(DeepChatOptions)
    add_routes(router, service, options.contact_header, options.thread_header)
