"""Our command without one of the things that every request of it has, to see what that thing costs:

    python -m benchmarks.apps.without metrics --app …

Nobody can switch these off: what is done here to the product's insides is for the measurement alone.
"""

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import jimsapi.asgi.app as framework
from jimsapi.asgi.connection import Request
from jimsapi.builtin.prometheus import PrometheusPlugin
from jimsapi.cli import main
from jimsapi.runs.calls import PipelineCalls
from jimsapi.runs.service import RunService

command: Any = importlib.import_module("jimsapi.cli.serve")


def without_metrics() -> None:
    """Nothing is counted or timed."""
    replaced(PrometheusPlugin, "jimsapi_observer", "return self._metrics", "return None")


def without_request_id() -> None:
    """No request has an id; none is taken over, made, sent or bound to the task. As the probes have it."""
    replaced(framework.App, "__call__", "probe = route is not None and route.probe", "probe = True")


def without_log_line() -> None:
    """No request is logged."""

    def api(*given: Any, on_request: object, **options: Any) -> Any:
        return command_api(*given, **options)

    command_api = command.Api
    command.Api = api


def without_limits() -> None:
    """No size of a body is looked at, no unread body, no time that a run takes."""
    replaced(Request, "_begin", "self._check_size(self._declared_length() or 0)", "pass")
    replaced(Request, "body", " and len(chunk) <= self.max_body", "")
    replaced(framework.App, "__call__", "response.names_connection or (request.watched and request.lingering)", "False")
    replaced(RunService, "_admit", "len(self._runs) >= self.limits.max_runs", "False")
    replaced(PipelineCalls, "_call", "deadline < self._alarm_at", "False")


def replaced(owner: type, name: str, part: str, by: str) -> None:
    """Give a class's method anew, with a part of its source replaced. Raises `SystemExit` if it does not have it."""
    method = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(method))
    if source.count(part) != 1:
        raise SystemExit(f"{owner.__name__}.{name} has changed: tell benchmarks/apps/without.py how to do without")
    made: dict[str, Any] = {}
    exec(source.replace(part, by), method.__globals__, made)
    setattr(owner, name, made[name])


WITHOUT: dict[str, Callable[[], None]] = {
    "metrics": without_metrics,
    "request id": without_request_id,
    "log line": without_log_line,
    "limits": without_limits,
}

if __name__ == "__main__":
    WITHOUT[sys.argv.pop(1)]()
    main()
