"""A transaction for each request, if traces are sampled."""

from contextvars import ContextVar

import sentry_sdk
from sentry_sdk.tracing import Transaction

from jimsapi.asgi import CLIENT_GONE, METHODS, ASGIApp, Receive, RequestRecord, Scope, Send

UNNAMED = "unmatched"
"""The name of a transaction until its request is answered."""

_TRACE_HEADERS = frozenset((b"sentry-trace", b"baggage"))

_transaction: ContextVar[Transaction | None] = ContextVar("jimsapi_sentry_transaction", default=None)


def trace_requests(app: ASGIApp) -> ASGIApp:
    """Return an app that handles each HTTP request in a transaction. Other protocols get none."""

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _TRACE_HEADERS
        }
        with sentry_sdk.isolation_scope():
            transaction = sentry_sdk.continue_trace(
                headers, op="http.server", name=UNNAMED, source="route", origin="auto.http.jimsapi"
            )
            with sentry_sdk.start_transaction(transaction):
                token = _transaction.set(transaction)
                try:
                    await app(scope, receive, send)
                finally:
                    _transaction.reset(token)

    return traced


def name_transaction(record: RequestRecord) -> None:
    """Set the name of the current request's transaction. The transactions of probes are dropped."""
    transaction = _transaction.get()
    if transaction is None:
        return
    if record.probe:
        transaction.sampled = False
        return
    method = record.method if record.method in METHODS else "HTTP"  # callers may invent methods
    transaction.name = f"{method} {record.route}"
    transaction.set_data("http.request.method", method)
    transaction.set_data("http.route", record.route)
    transaction.set_tag("request_id", record.request_id)
    if record.status != CLIENT_GONE:  # no response was sent
        transaction.set_http_status(record.status)
