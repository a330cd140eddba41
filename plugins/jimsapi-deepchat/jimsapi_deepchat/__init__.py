"""The endpoint of the chat component Deep Chat."""

from typing import Literal

from jimsapi import Options, Router, hookimpl, option
from jimsapi.plugins import CoreOptions, Settings
from jimsapi.runs import RunService


class DeepChatOptions(Options, prefix="deepchat"):
    """Options of /deep-chat."""

    contact_header: str | None = option(help="The header in which clients of /deep-chat name the contact.")
    thread_header: str | None = option(help="The header in which clients of /deep-chat name the conversation.")
    on_disconnect: Literal["continue", "cancel"] = option(
        "continue", help="Whether a run continues or is cancelled if its client of /deep-chat disconnects."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return DeepChatOptions


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> None:
    from jimsapi.wire import ThreadNames
    from jimsapi_deepchat.routes import add_routes

    options = settings.get(DeepChatOptions)
    names = ThreadNames("deep-chat", options.contact_header, options.thread_header)
    origins = settings.get(CoreOptions).cors_origin
    add_routes(router, service, names, cancels=options.on_disconnect == "cancel", origins=origins)
