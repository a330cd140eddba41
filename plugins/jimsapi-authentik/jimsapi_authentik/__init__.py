"""The auth provider for Authentik: it admits tokens of users who have access to one Authentik application.

Without options, this module imports only modules that jimsapi has already imported.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jimsapi import Options, hookimpl, option
from jimsapi.plugins import AuthProvider, CoreOptions, Settings, specs
from jimsapi.runs import QuotaLimits

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from jimsapi_authentik.provider import Authentik

logger = logging.getLogger("jimsapi.authentik")


class AuthentikOptions(Options, prefix="authentik"):
    """Options of the check against Authentik."""

    url: str | None = option(help="The URL of Authentik, for example https://auth.example.org.")
    app_slug: str | None = option(help="The slug of the Authentik application whose users are admitted.")
    timeout: float = option(
        5.0, minimum=0.001, maximum=300, help="Maximum seconds for the whole check of a token; then 503."
    )
    cache_ttl: float = option(
        30.0,
        minimum=0,
        maximum=3600,
        help="Seconds for which an admission is cached (a refusal: at most 5); 0 disables the cache.",
    )
    ca_file: Path | None = option(
        help="A file of CA certificates (PEM) to trust for Authentik, instead of the system's."
    )
    contact_field: Literal["username", "uid", "email", "pk"] | None = option(
        help="The field of an Authentik user that is their contact_id; it limits users to their own threads."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return AuthentikOptions


@hookimpl
def jimsapi_auth_provider(settings: Settings) -> AuthProvider | None:
    """Return the provider, or None if no option of the plugin is set.

    If an option is set but the URL or the slug is missing, return a provider that rejects every caller.

    Raises `StartError` for an invalid value.
    """
    if not any(settings.is_given(spec.key) for spec in specs(AuthentikOptions)):
        return None
    return settings.shared(_authentik) or _half_configured(settings.get(AuthentikOptions))


@hookimpl
def jimsapi_metrics(registry: "CollectorRegistry", settings: Settings) -> None:
    provider = settings.shared(_authentik)
    if provider is not None:
        from jimsapi_authentik.metrics import AuthentikCollector

        registry.register(AuthentikCollector(provider))


def _authentik(settings: Settings) -> "Authentik | None":
    """Return the provider of an app; None if the URL or the slug is missing."""
    options = settings.get(AuthentikOptions)
    if options.url is None or options.app_slug is None:
        return None
    if options.contact_field is None and settings.get(CoreOptions).quota != QuotaLimits():
        logger.warning(
            "limits count each token of an Authentik user separately, so a new token resets the user's limits: "
            "set --authentik-contact-field, so that all tokens of a user count as one caller"
        )

    from jimsapi_authentik.provider import Authentik

    return Authentik(
        options.url,
        options.app_slug,
        timeout=options.timeout,
        cache_ttl=options.cache_ttl,
        ca_file=options.ca_file,
        contact_field=options.contact_field,
    )


def _half_configured(options: AuthentikOptions) -> AuthProvider:
    from jimsapi_authentik.half_configured import HalfConfigured

    required = {"--authentik-url": options.url, "--authentik-app-slug": options.app_slug}
    missing = " and ".join(flag for flag, value in required.items() if value is None)
    logger.warning(
        "AUTHENTIK IS ONLY HALF CONFIGURED AND ADMITS NOBODY: missing %s; give both --authentik-url and "
        "--authentik-app-slug, or no Authentik option",
        missing,
    )
    return HalfConfigured(missing)
