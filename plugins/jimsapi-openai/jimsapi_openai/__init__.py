"""The chat completions of OpenAI's API, for Open WebUI, LibreChat and the OpenAI SDKs."""

from jimsapi import Options, Router, hookimpl, option
from jimsapi.plugins import Settings
from jimsapi.runs import RunService


class OpenAIOptions(Options, prefix="openai"):
    """Options of the routes below /v1."""

    contact_header: str = option(
        "X-OpenWebUI-User-Id", help="The header in which clients of /v1/chat/completions name the contact."
    )
    thread_header: str = option(
        "X-OpenWebUI-Chat-Id", help="The header in which clients of /v1/chat/completions name the conversation."
    )
    model: str | None = option(help="The name of the only model in /v1/models; without it, the pipeline's name.")


@hookimpl
def jimsapi_options() -> type[Options]:
    return OpenAIOptions


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> None:
    from jimsapi_openai.routes import add_routes

    options = settings.get(OpenAIOptions)
    add_routes(router, service, options.contact_header, options.thread_header, options.model)
