"""Serves agents of PydanticAI."""

import sys
from typing import Any

from jimsapi import JimsApp, hookimpl


@hookimpl
def jimsapi_adapt_app(obj: Any) -> JimsApp | None:
    """Return the app that serves an agent. None for other objects: without PydanticAI there are no agents."""
    framework = sys.modules.get("pydantic_ai")
    if framework is None or not isinstance(obj, framework.Agent):
        return None
    from jimsapi_pydantic_ai.adapted import adapt

    return adapt(obj)
