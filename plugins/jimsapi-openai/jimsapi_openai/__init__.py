"""OpenAI's chat completions, Responses and Conversations, for Open WebUI, LibreChat and the OpenAI SDKs."""

from typing import Literal

from jimsapi import Options, Router, hookimpl, option
from jimsapi.plugins import Settings
from jimsapi.runs import RunService


class OpenAIOptions(Options, prefix="openai"):
    """Options of the routes below /v1."""

    contact_header: str = option("X-OpenWebUI-User-Id", help="The header in which clients of /v1 name the contact.")
    thread_header: str = option("X-OpenWebUI-Chat-Id", help="The header in which clients of /v1 name the conversation.")
    on_disconnect: Literal["continue", "cancel"] = option(
        "continue", help="Whether a run continues or is cancelled if its client of /v1 disconnects."
    )
    model: str | None = option(help="The name of the only model in /v1/models; without it, the pipeline's name.")


@hookimpl
def jimsapi_options() -> type[Options]:
    return OpenAIOptions


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> None:
    from jimsapi.wire import ThreadNames
    from jimsapi_openai.routes import add_routes

    options = settings.get(OpenAIOptions)
    names = ThreadNames("openai", options.contact_header, options.thread_header)
    add_routes(router, service, names, options.model, cancels=options.on_disconnect == "cancel")
