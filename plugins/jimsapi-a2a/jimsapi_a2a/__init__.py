"""A2A 1.0, the protocol by which agents call agents: the agent card, and tasks that are durable runs."""

from pathlib import Path
from typing import Literal

from jimsapi import Options, Router, hookimpl, option
from jimsapi.plugins import Settings
from jimsapi.runs import RunService


class A2AOptions(Options, prefix="a2a"):
    """Options of the A2A agent."""

    url: str | None = option(
        help="The URL of this server as other agents reach it, such as https://bot.example; without it, the agent card "
        "has the host of each request."
    )
    signing_key: Path | None = option(
        help="A file with the private key (PEM; EC or RSA) that signs the agent card; it needs --a2a-url."
    )
    name: str | None = option(help="The name of the agent; without it, the name of the app or of its pipeline.")
    description: str | None = option(help="What the agent does; without it, the description of the app.")
    version: str = option("1.0.0", help="The version of the agent.")
    skills: Path | None = option(
        help="A JSON file with the list of the agent's skills (AgentSkill objects); without it, the skills of the app."
    )
    provider: str | None = option(help="The name of the organization that offers the agent.")
    provider_url: str | None = option(help="The web site of that organization; it is needed with --a2a-provider.")
    documentation_url: str | None = option(help="A web page about the agent.")
    icon_url: str | None = option(help="An image that stands for the agent.")
    push: Literal["on", "off"] = option(
        "on", help="Whether callers may have this server call receivers of their own: the push notifications of A2A."
    )
    contact_header: str | None = option(
        help="The header in which agents name the contact; without it, each context is a separate contact."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return A2AOptions


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> None:
    from jimsapi_a2a.routes import add_routes

    add_routes(router, service, settings)
