"""The options of the core, and checks for options of first-party plugins that are not installed."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal

from jimsapi.asgi.cors import is_origin
from jimsapi.plugins.config_file import ConfigFile
from jimsapi.plugins.errors import OptionError, StartError
from jimsapi.plugins.options import ENV_PREFIX, FILE_SUFFIX, Options, is_on, option
from jimsapi.plugins.secrets import Secret
from jimsapi.runs.budget import Budget
from jimsapi.runs.quota import QuotaLimits, Rate
from jimsapi.runs.signing import signing_key

_SPAN = re.compile(r"([0-9]{1,5})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class CoreOptions(Options):
    """The options of every jimsapi app, served or mounted."""

    app: str = option("app", help="The app to serve, as module:attribute; the attribute defaults to app.")
    store: str = option(
        "sqlite:///jims.db", help="Where threads are stored: sqlite:///file.db, memory:, or a plugin's URL."
    )
    require_auth: bool = option(help="Do not start if no auth provider is configured, so that the API is never public.")
    docs: Literal["public", "private", "off"] = option(
        "public", help="Who may read /openapi.json and /docs: everybody, callers that may use the API, or nobody."
    )
    auth_order: str | None = option(help="Names of auth providers in calling order, separated by commas.")
    context_events: int = option(
        200, minimum=0, maximum=1_000_000, help="How many messages of its thread a pipeline gets; 0 means all."
    )
    thread_queue: int = option(
        256, minimum=0, maximum=1_000_000, help="How many messages may wait in one thread; others get 429."
    )
    thread_busy: Literal["wait", "reject"] = option(
        "wait", help="Whether a message waits while its thread is busy with another, or gets 409."
    )
    on_disconnect: Literal["continue", "cancel"] = option(
        "continue",
        help="Whether a run continues or is cancelled if its client disconnects from /api/v1/chat or its stream.",
    )
    queue_timeout: float = option(
        60.0, minimum=0.001, maximum=86_400, help="Seconds that a message may wait for its turn; then 503."
    )
    run_timeout: float = option(
        300.0, minimum=0.001, maximum=86_400, help="Seconds that a pipeline may take from its start; then 504."
    )
    max_runs: int = option(
        1000, minimum=1, maximum=1_000_000, help="How many messages the process works on at once; others get 503."
    )
    rate_limit: str | None = option(
        help="Most messages of a caller for one contact, such as 5/s, 60/min, 1000/h or 10000/day; others get 429."
    )
    identity_rate_limit: str | None = option(
        help="Most messages of a caller for all its contacts together, such as 600/min; others get 429."
    )
    contact_runs: int | None = option(
        minimum=1, maximum=1_000_000, help="How many messages for one contact a caller may have open; others get 429."
    )
    identity_runs: int | None = option(
        minimum=1, maximum=1_000_000, help="How many messages a caller may have open in all; others get 429."
    )
    token_budget: str | None = option(
        help="Most tokens of models for a caller and contact, such as 1000000/day or 20000000/month; then 429."
    )
    cost_budget: str | None = option(
        help="Most US dollars for models for a caller and contact, such as 5/day or 100/month; then 429."
    )
    max_body: int = option(
        1_048_576, minimum=1, maximum=1_073_741_824, help="Bytes that a request's body may have; larger ones get 413."
    )
    websocket_origin: tuple[str, ...] = option(
        help="An origin whose pages may open WebSockets here, such as https://shop.example, besides those of this host."
    )
    cors_origin: tuple[str, ...] = option(
        help="An origin whose pages may read answers in a browser, as https://shop.example; * allows all."
    )
    keep_runs: float = option(
        30.0, minimum=0, maximum=36_500, help="Days that the record of a finished run is kept; events stay."
    )
    expire_threads: str | None = option(
        help="Delete threads that have no new event for this time, such as 90d, 12w or 24h. They are kept without it."
    )
    webhook_secret: tuple[Secret, ...] = option(
        help="The secret that signs calls to a webhook_url: whsec_ and Base64; repeat it to change secrets."
    )
    webhook_format: Literal["standard", "cloudevents"] = option(
        "standard", help="Whether a webhook_url receives Standard Webhooks, or these as CloudEvents."
    )
    webhook_allow_private: bool = option(help="Call webhooks at private addresses too, and without TLS.")
    hide_errors: bool = option(
        help="Answer a failed pipeline with the run's identifier instead of the exception's text, which is in the log."
    )
    drain_time: float = option(
        20.0,
        minimum=2.0,
        maximum=86_400,
        help="Seconds that a shutdown may take; three seconds before its end, the runs that are left are stopped.",
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        # These raise for invalid values. Without this, the error would come only after the store is open.
        _ = self.quota, self.webhook_keys, self.thread_lifetime
        _check_origins("--websocket-origin", self.websocket_origin, ("*", "null"))
        _check_origins("--cors-origin", self.cors_origin, ("*",))

    @property
    def quota(self) -> QuotaLimits:
        """The limits of callers. Raises `OptionError` for an invalid rate or budget."""
        return QuotaLimits(
            rate=_rate("--rate-limit", self.rate_limit),
            identity_rate=_rate("--identity-rate-limit", self.identity_rate_limit),
            contact_runs=self.contact_runs,
            identity_runs=self.identity_runs,
            token_budget=_budget("--token-budget", self.token_budget, Budget.of_tokens),
            cost_budget=_budget("--cost-budget", self.cost_budget, Budget.of_cost),
        )

    @property
    def thread_lifetime(self) -> timedelta | None:
        """How long a thread is kept after its newest event; None: for ever. Raises `OptionError` for a faulty span."""
        if self.expire_threads is None:
            return None
        span = _SPAN.fullmatch(self.expire_threads)
        if span is None or not int(span[1]):
            raise OptionError(f"--expire-threads: {self.expire_threads!r} is not a span; give 90d, 12w or 24h")
        return int(span[1]) * _UNITS[span[2]]

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        """The keys that sign webhooks; empty if webhooks are off. Raises `OptionError` for an invalid secret."""
        if not self.webhook_secret:
            return ()
        try:
            return tuple(signing_key(secret.reveal()) for secret in self.webhook_secret)
        except ValueError as error:
            raise OptionError(
                f"--webhook-secret: {error}; create one with: echo whsec_$(head -c 32 /dev/urandom | base64)"
            ) from None


def _check_origins(flag: str, origins: Iterable[str], special: Collection[str]) -> None:
    for origin in origins:
        if origin not in special and not is_origin(origin):
            raise OptionError(
                f"{flag}: {origin!r} is not an origin: give scheme and host as browsers send them, such as "
                "https://shop.example (a host that is not ASCII in its xn-- form)"
            )


def _rate(flag: str, text: str | None) -> Rate | None:
    if text is None:
        return None
    try:
        return Rate.parse(text)
    except ValueError as error:
        raise OptionError(f"{flag}: {text!r} is not a rate: {error}") from None


def _budget(flag: str, text: str | None, read: Callable[[str], Budget]) -> Budget | None:
    if text is None:
        return None
    try:
        return read(text)
    except ValueError as error:
        raise OptionError(f"{flag}: {text!r} is not a budget: {error}") from None


FIRST_PARTY_AUTH = {
    **dict.fromkeys(
        (
            "authentik_url", "authentik_app_slug", "authentik_timeout", "authentik_cache_ttl", "authentik_ca_file",
            "authentik_contact_field",
        ),
        "jimsapi-authentik",
    ),
    **dict.fromkeys(
        (
            "oidc_issuer", "oidc_audience", "oidc_jwks_url", "oidc_algorithms", "oidc_leeway", "oidc_scopes",
            "oidc_requested_scopes", "oidc_contact_claim", "oidc_pass_claims", "oidc_ca_file", "oidc_timeout",
        ),
        "jimsapi-oidc",
    ),
}  # fmt: skip
"""Auth options by key, and the distribution that has them. If one is set and the distribution is not installed, the
server does not start: without the plugin, the API would be public."""


FIRST_PARTY_REPORTING = dict.fromkeys(("enable_sentry", "sentry_personal_data"), "jimsapi-sentry")
"""Options of error reporting by key, and the distribution that has them. If it is not installed, the flags stop the
start. The variables cause only a warning, because other JIMS programs use them too."""


def keys_of(distributions: Collection[str]) -> frozenset[str]:
    """Return the keys of the options that these first-party distributions have."""
    owners = FIRST_PARTY_AUTH | FIRST_PARTY_REPORTING
    return frozenset(key for key, distribution in owners.items() if distribution in distributions)


def reject_options_of_missing_plugins(
    known: frozenset[str],
    given: Mapping[str, object],
    environ: Mapping[str, str],
    config: ConfigFile,
    left_out: Collection[str],
) -> None:
    """Raise `StartError` if an option is set whose first-party plugin is not loaded. The message names both.

    `left_out` are the installed distributions whose plugins `--plugins` or `--without-plugin` leaves out.
    """
    for key, distribution in (FIRST_PARTY_AUTH | FIRST_PARTY_REPORTING).items():
        source = None if key in known else _source(key, given, environ, config)
        if source is not None and distribution in left_out:
            raise StartError(
                f"{source} is set, but {distribution} is left out by --plugins or --without-plugin: load it, or unset "
                f"{source}"
            )
        if source is not None:
            raise StartError(
                f"{source} is set, but {distribution} is not installed: pip install {distribution}, or unset it"
            )


def _source(key: str, given: Mapping[str, object], environ: Mapping[str, str], config: ConfigFile) -> str | None:
    """The flag, variable or key that sets an option of a missing plugin and must stop the start; None without one."""
    if given.get(key):
        return "--" + key.replace("_", "-")
    variable = ENV_PREFIX + key.upper()
    variables = (variable, variable + FILE_SUFFIX) if key in FIRST_PARTY_AUTH else ()
    keys = [found for found in (key, key + FILE_SUFFIX.lower()) if config.values.get(found)]
    return next((name for name in variables if environ.get(name)), config.source(keys[0]) if keys else None)


def missing_reporting_plugins(known: frozenset[str], environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return pairs (variable, distribution) where a variable switches on reporting whose plugin is not installed.

    A `_FILE` variable counts as switched on. The file is not read.
    """
    variables = {ENV_PREFIX + key.upper(): name for key, name in FIRST_PARTY_REPORTING.items() if key not in known}
    files = {variable + FILE_SUFFIX: name for variable, name in variables.items()}
    return [(variable, name) for variable, name in (variables | files).items() if is_on(environ.get(variable, ""))]
