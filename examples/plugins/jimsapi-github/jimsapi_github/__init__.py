"""Admits the webhooks of GitHub, whose only proof is a signature over the body, and answers them."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from jimsapi import Options, Request, Router, Secret, hookimpl, option
from jimsapi.plugins import Settings
from jimsapi.runs import Inbound, RunService

if TYPE_CHECKING:
    from jimsapi.asgi import ASGIApp

    from jimsapi_github.provider import GitHubProvider

logger = logging.getLogger("jimsapi_github")

SCOPE = "github"
"""The scope of the route for webhooks. The provider grants no other one."""


class GitHubOptions(Options, prefix="github"):
    """`--github-secret`, `--github-max-body`, and variables and keywords of the same names."""

    secret: Secret | None = option(help="The secret of the webhook.")
    max_body: int = option(262_144, minimum=1, help="Bytes that the body of a signed request may have.")


class Repository(msgspec.Struct):
    """The repository of an event."""

    full_name: str


class Event(msgspec.Struct):
    """The fields that all events of repositories have."""

    repository: Repository
    action: str = ""


@hookimpl
def jimsapi_options() -> type[Options]:
    return GitHubOptions


@hookimpl
def jimsapi_auth_provider(settings: Settings) -> "GitHubProvider | None":
    """Return the provider, or None if the operator has set no option of this plugin."""
    options = settings.get(GitHubOptions)
    if options.secret is None and not settings.is_given("github_max_body"):
        return None
    from jimsapi_github.provider import GitHubProvider

    if options.secret is None:
        logger.warning("--github-max-body is set and --github-secret is not, so the plugin admits nobody")
    return GitHubProvider(options.secret)


@hookimpl
def jimsapi_asgi_wrapper(settings: Settings) -> "Callable[[ASGIApp], ASGIApp] | None":
    """Read the bodies of signed requests before the provider is called."""
    options = settings.get(GitHubOptions)
    if options.secret is None:
        return None
    from jimsapi_github.body import reading_ahead

    return reading_ahead(options.max_body)


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> None:
    """Add the route for webhooks, if the plugin is configured."""
    if settings.get(GitHubOptions).secret is None:
        return

    @router.post("/api/v1/github", scope=SCOPE, body=Event)
    async def deliver(request: Request) -> dict[str, list[str]]:
        """Answer an event of a repository. The contact of the thread is the repository.

        A delivery that arrives again gets the first answer, because its signature is the idempotency key.
        """
        event = await request.typed(Event)
        contact = event.repository.full_name
        message = f"{request.headers.get('x-github-event') or 'event'} {event.action}".strip()
        key = request.headers.get("x-hub-signature-256")
        run = service.begin(Inbound(contact_id=contact, message=message), request.admission, key=key)
        return {"messages": (await run.wait_for_answer()).assistant_messages}
