"""Serves apps that are written for jims-core, as they are.

This module imports nothing of jims-core: a server whose app is not written for it does not pay for it.
"""

import os
import sys
from typing import Any

from jimsapi import JimsApp, hookimpl
from jimsapi.plugins.options import Settings

PRICES = "LITELLM_LOCAL_MODEL_COST_MAP"
"""The variable that makes litellm, which jims-core imports, take the prices that came with it."""


@hookimpl
def jimsapi_load_app() -> None:
    """Load nothing, but be asked before the app's module is imported.

    litellm asks GitHub for the prices of models while it is imported, and the start waits for the answer. Who wants
    those prices sets the variable to `False`.
    """
    os.environ.setdefault(PRICES, "True")


@hookimpl
def jimsapi_adapt_app(obj: Any, settings: Settings) -> JimsApp | None:
    """Wrap a `jims_core.app.JimsApp`; its store is the app's own database unless `--store` names one.

    Raises `StartError` for a database that jimsapi cannot open.
    """
    if not _is_jims_app(obj):
        return None

    from jimsapi_jims.adapted import adapt
    from jimsapi_jims.store_url import store_url

    return adapt(obj, store=None if settings.is_given("store") else store_url(obj))


def _is_jims_app(obj: Any) -> bool:
    """Whether `obj` is a JIMS app. There is none in a process that has not imported jims-core."""
    jims_app = getattr(sys.modules.get("jims_core.app"), "JimsApp", None)
    return jims_app is not None and isinstance(obj, jims_app)
