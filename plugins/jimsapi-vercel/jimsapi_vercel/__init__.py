"""The UI message stream of Vercel's AI SDK: `POST /ai-sdk/chat` answers the requests of `useChat`."""

from typing import Literal

from jimsapi import Options, Router, hookimpl, option
from jimsapi.plugins import Settings
from jimsapi.runs import RunService


class VercelOptions(Options, prefix="vercel"):
    """Options of /ai-sdk."""

    contact_header: str | None = option(
        help="The header in which the AI SDK's clients name the contact; without it, each chat is a separate contact."
    )
    on_disconnect: Literal["cancel", "continue"] = option(
        "cancel", help="Whether a run is cancelled or continues if its client disconnects, as stop() of useChat does."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return VercelOptions


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> None:
    from jimsapi_vercel.routes import add_routes

    options = settings.get(VercelOptions)
    add_routes(router, service, options.contact_header, cancels=options.on_disconnect == "cancel")
