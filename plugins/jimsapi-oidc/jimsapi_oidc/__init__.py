"""The auth provider for access tokens of an OpenID Connect issuer: `Authorization: Bearer <JWT>`.

This module has the options and the hooks. It imports the rest of the plugin only if the plugin is configured.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jimsapi import Options, hookimpl, option
from jimsapi.plugins import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from jimsapi_oidc.half_configured import HalfConfigured
    from jimsapi_oidc.provider import OidcProvider

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "Ed448", "EdDSA"
]
"""Supported signature algorithms. HMAC and `none` are not supported: anybody with the public key could forge them."""


class OidcOptions(Options, prefix="oidc"):
    """Options of the check of tokens."""

    issuer: str | None = option(help="The issuer whose tokens are accepted, exactly as in their iss claim.")
    audience: tuple[str, ...] = option(help="An audience (aud claim) that is accepted; repeat it to accept several.")
    jwks_url: str | None = option(help="The URL of the issuer's keys; by default the one in its discovery document.")
    algorithms: tuple[Algorithm, ...] = option(
        ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
        help="A signature algorithm that is accepted; repeat it to accept several.",
    )
    leeway: float = option(
        60.0, minimum=0, maximum=600, help="Seconds by which the issuer's clock may differ from this server's."
    )
    scopes: tuple[str, ...] = option(help="A scope that a token must have; repeat it to require several.")
    requested_scopes: tuple[str, ...] = option(
        help="A scope that clients are told to request, instead of --oidc-scopes; repeat it to name several."
    )
    contact_claim: str = option(
        "sub", help="The claim with the caller's contact_id; with none, callers may chat for every contact."
    )
    pass_claims: tuple[str, ...] = option(
        help="A claim that pipelines get as ctx.identity.claims, such as name; repeat it to pass several on."
    )
    ca_file: Path | None = option(
        help="A file of CA certificates (PEM) to trust for the issuer, instead of the system's."
    )
    timeout: float = option(5.0, minimum=0.1, maximum=60, help="Maximum seconds for fetching the issuer's keys.")


FIELDS = (
    "issuer", "audience", "jwks_url", "algorithms", "leeway", "scopes", "requested_scopes", "contact_claim",
    "pass_claims", "ca_file", "timeout",
)  # fmt: skip


def is_configured(settings: Settings) -> bool:
    """Return whether any option of the plugin is set. The API is then not public, even if other options are missing."""
    return any(settings.is_given(f"oidc_{field}") for field in FIELDS)


@hookimpl
def jimsapi_options() -> type[Options]:
    return OidcOptions


@hookimpl
def jimsapi_auth_provider(settings: Settings) -> "OidcProvider | HalfConfigured | None":
    if not is_configured(settings):
        return None
    options = settings.get(OidcOptions)
    if not options.issuer or not options.audience:
        from jimsapi_oidc.half_configured import HalfConfigured

        return HalfConfigured(options)
    from jimsapi_oidc.metrics import counts_of
    from jimsapi_oidc.provider import OidcProvider

    return OidcProvider(options, settings.shared(counts_of))


@hookimpl
def jimsapi_metrics(registry: "CollectorRegistry", settings: Settings) -> None:
    if is_configured(settings):
        from jimsapi_oidc.metrics import counts_of

        registry.register(settings.shared(counts_of))
