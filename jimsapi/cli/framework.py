"""Serves a `jimsapi.asgi.App` by itself, with the server of the command and without the chat API."""

import asyncio
from collections.abc import Callable, Iterator

from jimsapi.api.app import VERSION
from jimsapi.api.metrics import MetricsOptions
from jimsapi.builtin.client_certificate import CertificateOptions
from jimsapi.cli.options import OPTIONS_OF_EVERY_APP, LogOptions, ServerOptions
from jimsapi.cli.server_config import HALF_SENT_WITHIN, loaded_config, server_config, warn_of_missing_websockets
from jimsapi.plugins.compose import AppWithoutPipeline
from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.options import ENV_PREFIX

_METRICS_PORT = "metrics_port"


class FrameworkApp:
    """A `jimsapi.asgi.App` that is served in place of the chat API. It is the `Work` of a drain.

    Raises `StartError` for an option that is set and that only the chat API has. An operator who sets `--api-key` would
    otherwise believe that the app asks for it.
    """

    def __init__(
        self, found: AppWithoutPipeline, on_started: Callable[["FrameworkApp"], None] = lambda served: None
    ) -> None:
        self.app = found.app
        self._found = found
        self._on_started = on_started
        self._drain_until = 0.0
        self._reject_options_of_the_chat()
        settings = found.settings
        given = settings.is_given("drain_time")
        self.drain_time = settings.get(CoreOptions).drain_time if given else self.app.drain_time
        server, certificates = settings.get(ServerOptions), settings.get(CertificateOptions)
        self.drain_delay = server.drain_delay
        self.log = settings.get(LogOptions)
        self.config = loaded_config(server_config(server, certificates, self.app.max_body, self.app))
        warn_of_missing_websockets(self.config, self.app)

    def _reject_options_of_the_chat(self) -> None:
        settings = self._found.settings
        for key in sorted(settings.known - OPTIONS_OF_EVERY_APP):
            if settings.is_given(key) and (key != _METRICS_PORT or settings.get(MetricsOptions).port):
                flag, origin = "--" + key.replace("_", "-"), settings.origin(key)
                # The source of a value in the configuration file has the file and the key.
                remedy = f"remove {origin}" if ": " in origin else f"unset {flag}"
                raise StartError(
                    f"{self._found.source} is a jimsapi.asgi.App, on which {flag} ({ENV_PREFIX}{key.upper()}) has no "
                    f"effect: {remedy}, and set what the app needs in its code, such as App(admit=...); `jimsapi "
                    "--help` lists the options of every app"
                )

    def on_started(self) -> None:
        """The app has started, and the server is about to accept connections."""
        self._on_started(self)

    def start_lines(self, address: str) -> list[str]:
        """Return the lines that a start logs."""
        count = len(self.app.routes)
        auth = "its own `admit`" if self.app.admit is not None else "none, every route is public"
        name = self._found.source.removeprefix("--app ")
        return [
            f"jimsapi {VERSION} serves {name} at {address}, a jimsapi.asgi.App with {count} routes",
            f"auth: {auth}; the chat API, plugins and metrics are off",
        ]

    def state(self) -> Iterator[str]:
        """Yield what the app works on, in lines for an operator. Any thread may read them."""
        return self.app.state()

    def announce_drain(self) -> None:
        """Let the app's readiness probe see that a drain will begin."""
        self.app.announce_drain()

    async def drain(self, seconds: float) -> None:
        """Drain the app. The requests that are still answered then have the rest of the time, with the port closed."""
        loop = asyncio.get_running_loop()
        self._drain_until = loop.time() + seconds
        await self.app.drain(seconds)
        self.config.timeout_graceful_shutdown = max(HALF_SENT_WITHIN, round(self._drain_until - loop.time()))

    def interrupt(self) -> None:
        """Let a drain end now, as after a second signal."""
        self._drain_until = 0.0  # the requests get no more time either
        self.app.interrupt()
