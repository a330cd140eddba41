"""Reports failures, and traces if they are sampled, to Sentry.

This module has the options and the hooks. It imports sentry-sdk only if reporting is enabled.
"""

import logging
import os
from typing import TYPE_CHECKING

from jimsapi import Options, hookimpl, option
from jimsapi.plugins import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from jimsapi.asgi import ASGIApp
    from jimsapi.runs import Pipeline
    from jimsapi_sentry.reporting import Reporting

logger = logging.getLogger("jimsapi.sentry")


class SentryOptions(Options):
    """Options of the reports. The variable `SENTRY_DSN` has their destination."""

    enable_sentry: bool = option(help="Report failures, and traces if sampled, to the Sentry of SENTRY_DSN.")
    sentry_personal_data: bool = option(
        help="Also send data that may be personal to Sentry: texts of exceptions and log messages, and the user."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return SentryOptions


@hookimpl
def jimsapi_observer(settings: Settings) -> "Reporting | None":
    options = settings.get(SentryOptions)
    if not options.enable_sentry:
        return None
    if not _has_dsn():
        logger.warning("--enable-sentry is given, but SENTRY_DSN is not set: NOTHING IS REPORTED; set it to your DSN")
        return None
    from jimsapi_sentry.reporting import Reporting, plan_from

    return Reporting(plan_from(os.environ, personal=options.sentry_personal_data))


@hookimpl
def jimsapi_asgi_wrapper(settings: Settings) -> "Callable[[ASGIApp], ASGIApp] | None":
    if not _is_on(settings):
        return None
    from jimsapi_sentry.reporting import plan_from
    from jimsapi_sentry.requests import trace_requests

    return trace_requests if plan_from(os.environ, personal=False).traces_sample_rate else None


@hookimpl
def jimsapi_pipeline_wrapper(settings: Settings) -> "Callable[[Pipeline, str], Pipeline] | None":
    """Wrap the pipelines, so that the reports of their failures have the thread."""
    if not _is_on(settings):
        return None
    from jimsapi_sentry.pipelines import report_pipeline

    return report_pipeline


def _is_on(settings: Settings) -> bool:
    return settings.get(SentryOptions).enable_sentry and _has_dsn()


def _has_dsn() -> bool:
    return bool(os.environ.get("SENTRY_DSN", "").strip())
