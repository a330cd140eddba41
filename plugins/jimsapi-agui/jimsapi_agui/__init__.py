"""AG-UI, the protocol of CopilotKit and assistant-ui: `POST /ag-ui` answers a message with AG-UI events."""

from typing import Literal

from jimsapi import Options, Router, hookimpl, option
from jimsapi.plugins import Settings
from jimsapi.runs import RunService


class AguiOptions(Options, prefix="agui"):
    """Options of /ag-ui."""

    contact_header: str | None = option(
        help="The header in which AG-UI's clients name the contact; without it, each thread is a separate contact."
    )
    on_disconnect: Literal["cancel", "continue"] = option(
        "cancel", help="Whether a run is cancelled or continues if its AG-UI client disconnects, as abortRun() does."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return AguiOptions


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> None:
    from jimsapi_agui.routes import add_routes

    options = settings.get(AguiOptions)
    add_routes(router, service, options.contact_header, cancels=options.on_disconnect == "cancel")
