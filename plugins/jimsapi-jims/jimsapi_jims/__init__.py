"""Serves apps that are written for jims-core, without changes.

This module does not import jims-core, so that it costs nothing if the app is not written for jims-core.
"""

import os
import sys
from typing import Any

from jimsapi import JimsApp, hookimpl
from jimsapi.plugins import Settings

PRICES = "LITELLM_LOCAL_MODEL_COST_MAP"
"""The variable that makes litellm, which jims-core imports, use its bundled prices."""


@hookimpl
def jimsapi_load_app() -> None:
    """Prepare the import of the app's module, and leave the reference to the next plugin.

    This sets a variable for litellm. Otherwise, importing litellm downloads the prices of models from GitHub, and the
    start waits for it. Operators who want these prices set the variable to `False`.
    """
    os.environ.setdefault(PRICES, "True")


@hookimpl
def jimsapi_adapt_app(obj: Any, settings: Settings) -> JimsApp | None:
    """Wrap a `jims_core.app.JimsApp`. Its store is the app's own database, unless `--store` is set.

    Raises `StartError` if jimsapi cannot open that database.
    """
    if not _is_jims_app(obj):
        return None

    from jimsapi_jims.adapted import adapt
    from jimsapi_jims.store_url import store_url

    return adapt(obj, store=None if settings.is_given("store") else store_url(obj))


def _is_jims_app(obj: Any) -> bool:
    """Whether `obj` is a JIMS app. It cannot be one if jims-core is not imported."""
    jims_app = getattr(sys.modules.get("jims_core.app"), "JimsApp", None)
    return jims_app is not None and isinstance(obj, jims_app)
