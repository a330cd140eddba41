"""Admits callers that sign each request with a secret of their own."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from jimsapi import Options, Secret, hookimpl, option
from jimsapi.plugins import Settings, StartError

if TYPE_CHECKING:
    from jimsapi.asgi import ASGIApp

    from jimsapi_hmac.provider import HmacProvider


class HmacOptions(Options, prefix="hmac"):
    """`--hmac-keys`, `--hmac-window`, and variables and keywords of the same names."""

    keys: tuple[Secret, ...] = option(help="A caller, written NAME:SECRET. May be repeated.")
    window: float = option(300.0, minimum=1, maximum=86400, help="Seconds that a signature is valid.")


@hookimpl
def jimsapi_options() -> type[Options]:
    return HmacOptions


@hookimpl
def jimsapi_auth_provider(settings: Settings) -> "HmacProvider | None":
    """Return the provider, or None if the operator has set no option of this plugin."""
    options = settings.get(HmacOptions)
    if not options.keys and not settings.is_given("hmac_window"):
        return None
    from jimsapi_hmac.provider import HmacProvider

    return HmacProvider(read_keys(options.keys), options.window)


@hookimpl
def jimsapi_asgi_wrapper(settings: Settings) -> "Callable[[ASGIApp], ASGIApp] | None":
    """Check the bodies of signed requests. A provider cannot: it is called before the body is read."""
    if not settings.get(HmacOptions).keys:
        return None
    from jimsapi_hmac.body import check_bodies

    return check_bodies


def read_keys(keys: tuple[Secret, ...]) -> dict[str, Secret]:
    """Return the secrets by name. Raises `StartError`, which never shows a secret."""
    found = {}
    for number, key in enumerate(keys, 1):
        name, _, secret = key.reveal().partition(":")
        if not name or not secret or not name.isascii() or name in found:
            raise StartError(f"--hmac-keys: value {number} is invalid: give NAME:SECRET, each name once")
        found[name] = Secret(secret)
    return found
