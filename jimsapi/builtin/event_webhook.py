"""A durable sink that sends every event to a URL, signed as Standard Webhooks 1.0.0 describes.

The body is the payload of Standard Webhooks, or a CloudEvent 1.0.2 in JSON. The operator chooses the URL, so it may
have a private address and need no TLS.
"""

from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from jimsapi.plugins import OptionError, Options, Secret, Settings, StartError, hookimpl, option
from jimsapi.runs import signing_key

if TYPE_CHECKING:
    from jimsapi.builtin.event_sender import EventSender  # imports an HTTP client, which servers without it do not need

Format = Literal["standard", "cloudevents"]

CREATE_SECRET = "create one with: echo whsec_$(head -c 32 /dev/urandom | base64)"
"""What an operator without a secret does next."""


class EventWebhookOptions(Options, prefix="event_webhook"):
    """A URL that receives all events."""

    url: str | None = option(help="Send every stored event to this URL.")
    secret: tuple[Secret, ...] = option(
        help="The secret that signs what --event-webhook-url receives: whsec_ and Base64; repeat it to change secrets."
    )
    format: Format = option("standard", help="Whether the URL receives Standard Webhooks or CloudEvents.")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        _ = self.keys
        if self.url is None:
            return
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise OptionError(
                "--event-webhook-url is not a URL that begins with https:// or http:// and a host; a port is from 1 to "
                "65535"
            )
        if not self.secret:
            raise OptionError(f"--event-webhook-url needs --event-webhook-secret; {CREATE_SECRET}")

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The keys that sign the calls. Raises `OptionError` for an invalid secret."""
        try:
            return tuple(signing_key(secret.reveal()) for secret in self.secret)
        except ValueError as error:
            raise OptionError(f"--event-webhook-secret: {error}; {CREATE_SECRET}") from None


@hookimpl
def jimsapi_options() -> type[Options]:
    return EventWebhookOptions


@hookimpl
def jimsapi_event_sink(settings: Settings) -> "EventSender | None":
    options = settings.get(EventWebhookOptions)
    if options.url is None:
        return None
    settings.guard(options.url)
    from jimsapi.builtin.event_sender import EventSender

    try:
        return EventSender(options.url, options.keys, as_cloud_events=options.format == "cloudevents")
    except ValueError as error:
        raise StartError(f"--event-webhook-url: {error}") from None
