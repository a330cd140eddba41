"""Loads the app from `module:attribute` (`module` means `module:app`), and wraps a bare pipeline in a `JimsApp`."""

import importlib
import sys
from pathlib import Path
from typing import Any

from jimsapi.plugins import hookimpl
from jimsapi.runs import JimsApp, is_pipeline, takes_context


@hookimpl
def jimsapi_load_app(reference: str) -> Any:
    module_name, _, attribute = reference.partition(":")
    attribute = attribute or "app"
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise ValueError("give module:attribute, for example bot:app")
    try:
        here = str(Path.cwd())
    except FileNotFoundError as error:
        raise ValueError("the current folder was removed; start in another one") from error
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise ValueError(f"there is no module {error.name} in {here} or among the installed packages") from error
        raise ValueError(f"{module_name} needs {error.name}, which is not installed") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ValueError(f"{module_name} has no {attribute}") from error
    if found is None:
        raise ValueError(f"{module_name}:{attribute} is None")
    return found


@hookimpl
def jimsapi_adapt_app(obj: Any) -> JimsApp | None:
    return JimsApp(obj) if is_pipeline(obj) and takes_context(obj) else None
