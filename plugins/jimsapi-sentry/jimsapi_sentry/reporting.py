"""Sentry's client. The process has one, from the start of the first app that uses it to the end of the last."""

import asyncio
import importlib.metadata
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import ClassVar, Self

import msgspec
import sentry_sdk
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.integrations.threading import ThreadingIntegration
from sentry_sdk.utils import BadDsn, Dsn, get_default_release

from jimsapi.asgi import RequestRecord
from jimsapi.plugins import StartError
from jimsapi_sentry.events import Cleaner
from jimsapi_sentry.requests import name_transaction

logger = logging.getLogger("jimsapi.sentry")

FLUSH_WITHIN = 2.0
"""Seconds for which a shutdown waits for unsent events."""

MAX_TEXT = 8192
"""Maximum number of characters of a text in a report."""


class Plan(msgspec.Struct, frozen=True):
    """The configuration of Sentry's client. `personal` is whether reports may contain texts of users."""

    dsn: str
    traces_sample_rate: float
    personal: bool

    def __repr__(self) -> str:
        return f"Plan(traces_sample_rate={self.traces_sample_rate}, personal={self.personal})"


def plan_from(environ: Mapping[str, str], *, personal: bool) -> Plan:
    """Read Sentry's standard variables. Raises `StartError` for an invalid one; the message contains no key."""
    dsn = environ["SENTRY_DSN"].strip()
    try:
        Dsn(dsn)
    except (BadDsn, ValueError):
        raise StartError(
            "SENTRY_DSN is not a DSN: copy it from your Sentry project (https://<key>@<host>/<project>), or unset it"
        ) from None
    return Plan(dsn, _sample_rate(environ), personal)


def _sample_rate(environ: Mapping[str, str]) -> float:
    text = environ.get("SENTRY_TRACES_SAMPLE_RATE", "").strip() or "0"
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        raise StartError(f"SENTRY_TRACES_SAMPLE_RATE: {text!r} is not a number from 0 to 1")
    return rate


class Reporting:
    """Creates Sentry's client when it is entered. As an observer, it names the transactions of requests.

    If the process already has a client, because the app has called `sentry_sdk.init`, that one is used without changes.
    """

    _app_count: ClassVar[int] = 0
    """The number of apps in this process that use the client of the plugin."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._uses_client = False

    async def __aenter__(self) -> Self:
        if not Reporting._app_count and sentry_sdk.get_client().is_active():
            logger.warning("the process has a Sentry client already, which is used with its own settings")
            return self
        if not Reporting._app_count:
            _create_client(self._plan)
        Reporting._app_count += 1
        self._uses_client = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._uses_client:
            return
        self._uses_client = False
        Reporting._app_count -= 1
        if not Reporting._app_count:
            client = sentry_sdk.get_client()
            await asyncio.to_thread(client.close, timeout=FLUSH_WITHIN)
            sentry_sdk.get_global_scope().set_client(None)

    def on_request(self, record: RequestRecord) -> None:
        """Set the name of the request's transaction to its route."""
        name_transaction(record)


def _create_client(plan: Plan) -> None:
    cleaner = Cleaner(personal=plan.personal)
    sentry_sdk.init(
        dsn=plan.dsn,
        release=get_default_release() or f"jimsapi@{importlib.metadata.version('jimsapi')}",
        traces_sample_rate=plan.traces_sample_rate or None,
        send_default_pii=True if plan.personal else None,  # None means False; newer SDKs warn of False
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        max_value_length=MAX_TEXT,
        spotlight=False,  # a variable could enable it, and it would send all events to a second address
        # The SDK's default integrations send the command line with its keys, SQL, URLs and prompts.
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            LoggingIntegration(level=None, event_level=logging.ERROR, sentry_logs_level=None),
            DedupeIntegration(),
            ExcepthookIntegration(),
            ThreadingIntegration(),
        ],
        before_send=cleaner.clean_event,
        before_send_transaction=cleaner.clean_transaction,
        shutdown_timeout=FLUSH_WITHIN,
    )
