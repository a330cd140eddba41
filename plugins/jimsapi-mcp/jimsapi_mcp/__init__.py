"""The Model Context Protocol: the pipeline is a tool of editors, assistants and other agents, at `POST /mcp`."""

import re
from typing import Any

from jimsapi import Options, Router, Secret, hookimpl, option
from jimsapi.plugins import CoreOptions, OptionError, Settings
from jimsapi.runs import RunService

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_TOOL = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class McpOptions(Options, prefix="mcp"):
    """Options of the MCP server."""

    path: str = option("/mcp", help="The path of the MCP server.")
    tool: str = option(
        "chat", help="The name of the tool; the others have it as a beginning, such as chat_start and chat_get."
    )
    title: str | None = option(help="The name of the server for people; without it, the name of the app.")
    description: str | None = option(
        help="What models read about the agent; without it, the docstring of the pipeline."
    )
    contact_header: str | None = option(
        help="The header in which MCP clients name the contact; without it, each caller is a contact of its own."
    )
    secret: Secret | None = option(
        help="Signs the state of a question that MCP clients send back; without it, the key is made from the run."
    )
    form_wait: float = option(
        600.0,
        minimum=0.001,
        maximum=86_400,
        help="Seconds for which a call of a client of 2025-11-25 or earlier waits for a person to fill in a form.",
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if not _PATH.fullmatch(self.path):
            raise OptionError("--mcp-path must begin with a slash, not end with one, and have no parameters")
        if not _TOOL.fullmatch(self.tool):
            raise OptionError("--mcp-tool may have letters, digits, -, _ and ., and at most 64 of them")


@hookimpl
def jimsapi_options() -> type[Options]:
    return McpOptions


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> None:
    from jimsapi_mcp.routes import add_routes

    add_routes(router, service, settings.get(McpOptions), settings.get(CoreOptions).cors_origin)
