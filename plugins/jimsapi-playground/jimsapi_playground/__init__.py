"""A page to talk to a pipeline in a browser, and to see what it does.

This module has the option and the hook. They import the rest of the package only if the page is served.
"""

import logging
import os
from typing import Literal

from jimsapi import Options, Router, hookimpl, option
from jimsapi.plugins import Settings

logger = logging.getLogger("jimsapi.playground")

INHERITS_SOCKETS = "LISTEN_FDS" in os.environ
"""Whether a service manager has opened the sockets. This is read here, since the command removes the variable before
it starts the app."""


class PlaygroundOptions(Options):
    """The option of the page."""

    playground: Literal["auto", "on", "off"] = option(
        "auto", help="Whether / is a page to talk to the app; auto serves it to this machine if no other can connect."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return PlaygroundOptions


@hookimpl
def jimsapi_routes(router: Router, settings: Settings) -> None:
    mode = settings.get(PlaygroundOptions).playground
    if mode == "off":
        return
    if mode == "auto":
        from jimsapi_playground.local import serves_this_machine

        if INHERITS_SOCKETS or not serves_this_machine(settings):
            if settings.value("host") is not None:  # the server is the command
                logger.info(
                    "the playground is not served, since others than this machine may reach the server: give "
                    "--playground on to serve it to them, or --host 127.0.0.1 to listen for this machine alone"
                )
            return
    from jimsapi_playground.routes import add_routes

    add_routes(router, local_only=mode == "auto")
    logger.info("the playground is at the path /%s", ", for browsers of this machine" if mode == "auto" else "")
