"""A span for each operation of the store that a run waits for, from the call to the end of the transaction.

Several runs may share a transaction, so the span of a run includes the wait for the others.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from opentelemetry import trace
from opentelemetry.trace import StatusCode

from jimsapi.threads import DomainError, StoreUnavailable, ThreadStore
from jimsapi_otel.errors import error_type, note_error

TRACED = frozenset(("accept", "start", "finish", "append", "cancel", "load_events"))
SYSTEMS = frozenset(("sqlite", "postgresql"))
"""Kinds of stores for which the semantic conventions have a name. The name is the same."""

Result = TypeVar("Result")


def trace_store(store: ThreadStore) -> ThreadStore:
    """Return a store that adds spans to the operations of `store`."""
    return cast("ThreadStore", TracedStore(store))


class TracedStore:
    """A store that adds spans to the operations of runs, and passes all others to the wrapped store."""

    def __init__(self, store: ThreadStore) -> None:
        self._store = store
        self._tracer = trace.get_tracer("jimsapi")
        self._system = store.name.partition(":")[0].lower()
        for name in TRACED:
            setattr(self, name, self._traced(name, getattr(store, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _traced(self, name: str, operation: Callable[..., Awaitable[Result]]) -> Callable[..., Awaitable[Result]]:
        attributes = {"db.operation.name": name}
        if self._system in SYSTEMS:
            attributes["db.system.name"] = self._system

        async def traced(*arguments: Any, **named: Any) -> Result:
            with self._tracer.start_as_current_span(
                f"jims.store.{name}", attributes=attributes, record_exception=False, set_status_on_exception=False
            ) as span:
                try:
                    return await operation(*arguments, **named)
                except BaseException as error:
                    span.set_attribute("error.type", error_type(error))
                    if not isinstance(error, DomainError):
                        note_error(span, error)
                    elif isinstance(error, StoreUnavailable):  # other domain errors are results: "no such thread"
                        span.set_status(StatusCode.ERROR)
                    raise

        return traced
