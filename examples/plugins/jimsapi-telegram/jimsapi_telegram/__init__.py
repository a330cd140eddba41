"""Admits users of a Telegram bot's Mini App."""

import logging
from typing import TYPE_CHECKING

from jimsapi import Options, Secret, hookimpl, option
from jimsapi.plugins import Settings

if TYPE_CHECKING:
    from jimsapi_telegram.provider import TelegramProvider

logger = logging.getLogger("jimsapi_telegram")


class TelegramOptions(Options, prefix="telegram"):
    """`--telegram-token`, `--telegram-max-age`, and variables and keywords of the same names."""

    token: Secret | None = option(help="The token of the bot to which the Mini App belongs.")
    max_age: float = option(
        3600.0, minimum=1, help="Seconds that the data of a user is valid after Telegram signed it."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return TelegramOptions


@hookimpl
def jimsapi_auth_provider(settings: Settings) -> "TelegramProvider | None":
    """Return the provider, or None if the operator has set no option of this plugin."""
    options = settings.get(TelegramOptions)
    if options.token is None and not settings.is_given("telegram_max_age"):
        return None
    from jimsapi_telegram.provider import TelegramProvider

    if options.token is None:
        logger.warning("--telegram-max-age is set and --telegram-token is not, so the plugin admits nobody")
    return TelegramProvider(options.token, options.max_age)
