"""The flow of a run, from an inbound message to a stored outcome. It does not depend on HTTP."""

from typing import TYPE_CHECKING

from jimsapi.lazy_attributes import lazy_attributes

if TYPE_CHECKING:
    from jimsapi.runs.admission import Admission
    from jimsapi.runs.errors import (
        ContactForbidden,
        QuestionClosed,
        QuestionNotFound,
        RunCancelled,
        RunEnded,
        ScopeMissing,
    )
    from jimsapi.runs.histogram import Histogram
    from jimsapi.runs.inbound import Inbound, check_contact_id, storable_json, thread_metadata
    from jimsapi.runs.lists import Lists
    from jimsapi.runs.live import LiveRun
    from jimsapi.runs.lookup import Runs
    from jimsapi.runs.pipeline import JimsApp, Pipeline, is_pipeline, pipeline_name, takes_context
    from jimsapi.runs.quota import QuotaLimits
    from jimsapi.runs.result import RunResult
    from jimsapi.runs.scopes import CHAT, SCOPES, THREADS
    from jimsapi.runs.service import RunService
    from jimsapi.runs.signing import signatures, signing_key
    from jimsapi.runs.sinks import EventRefused
    from jimsapi.runs.skill import Skill
    from jimsapi.runs.stream import Status
    from jimsapi.runs.subscriptions import Notice, Notifier, Subscriptions
    from jimsapi.runs.tasks import ServiceTask
    from jimsapi.runs.threads import ThreadService
    from jimsapi.runs.work import WorkQueue
    from jimsapi.threads.identity import Identity

__all__ = [
    "CHAT",
    "SCOPES",
    "THREADS",
    "Admission",
    "ContactForbidden",
    "EventRefused",
    "Histogram",
    "Identity",
    "Inbound",
    "JimsApp",
    "Lists",
    "LiveRun",
    "Notice",
    "Notifier",
    "Pipeline",
    "QuestionClosed",
    "QuestionNotFound",
    "QuotaLimits",
    "RunCancelled",
    "RunEnded",
    "RunResult",
    "RunService",
    "Runs",
    "ScopeMissing",
    "ServiceTask",
    "Skill",
    "Status",
    "Subscriptions",
    "ThreadService",
    "WorkQueue",
    "check_contact_id",
    "is_pipeline",
    "pipeline_name",
    "signatures",
    "signing_key",
    "storable_json",
    "takes_context",
    "thread_metadata",
]

if not TYPE_CHECKING:  # a type checker would find every name
    __getattr__, __dir__ = lazy_attributes(
        __name__,
        {
            "jimsapi.runs.errors": (
                "ContactForbidden",
                "QuestionClosed",
                "QuestionNotFound",
                "RunCancelled",
                "RunEnded",
                "ScopeMissing",
            ),
            "jimsapi.runs.histogram": ("Histogram",),
            "jimsapi.runs.admission": ("Admission",),
            "jimsapi.runs.scopes": ("CHAT", "SCOPES", "THREADS"),
            "jimsapi.runs.inbound": ("Inbound", "check_contact_id", "storable_json", "thread_metadata"),
            "jimsapi.runs.lists": ("Lists",),
            "jimsapi.runs.live": ("LiveRun",),
            "jimsapi.runs.lookup": ("Runs",),
            "jimsapi.runs.pipeline": ("JimsApp", "Pipeline", "is_pipeline", "pipeline_name", "takes_context"),
            "jimsapi.runs.quota": ("QuotaLimits",),
            "jimsapi.runs.result": ("RunResult",),
            "jimsapi.runs.service": ("RunService",),
            "jimsapi.runs.signing": ("signatures", "signing_key"),
            "jimsapi.runs.sinks": ("EventRefused",),
            "jimsapi.runs.skill": ("Skill",),
            "jimsapi.runs.stream": ("Status",),
            "jimsapi.runs.subscriptions": ("Notice", "Notifier", "Subscriptions"),
            "jimsapi.runs.tasks": ("ServiceTask",),
            "jimsapi.runs.threads": ("ThreadService",),
            "jimsapi.runs.work": ("WorkQueue",),
            "jimsapi.threads.identity": ("Identity",),
        },
    )
