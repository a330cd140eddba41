"""The routes of usage: what models were used for, by thread, contact and caller."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, cast

import msgspec

from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.runs.admission import Admission
from jimsapi.runs.keys import caller_digest
from jimsapi.runs.scopes import THREADS
from jimsapi.runs.threads import ThreadService
from jimsapi.threads.errors import InputRefused
from jimsapi.threads.usage import ModelTotal, UsageHolder, UsageTotal
from jimsapi.wire.answer import LOOKUP_REFUSALS

DAYS = 30
"""The days that an answer covers unless the request names others."""
MAX_DAYS = 366

Contact = Annotated[
    str | None, msgspec.Meta(description="The contact. The default is the one that the caller is bound to.")
]
Provider = Annotated[str | None, msgspec.Meta(description="The auth provider of the caller that `subject` names.")]
Subject = Annotated[
    str | None, msgspec.Meta(description="A caller. With `contact_id`, its usage for this contact; else for all.")
]
FirstDay = Annotated[date | None, msgspec.Meta(description="In UTC. The default is 29 days before `last_day`.")]
LastDay = Annotated[date | None, msgspec.Meta(description="In UTC. The default is today.")]


class UsageQuery(msgspec.Struct):
    """Whose usage, and of which days."""

    contact_id: Contact = None
    provider: Provider = None
    subject: Subject = None
    first_day: FirstDay = None
    last_day: LastDay = None


class UsageFigures(msgspec.Struct):
    """What models were used for. `cached_tokens` are among `input_tokens`. `cost` is in US dollars; calls whose cost is
    not known add nothing to it."""

    calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: float


class ModelUsage(UsageFigures, kw_only=True):
    """What one model was used for."""

    model: str


class DayUsage(ModelUsage, kw_only=True):
    """What one model was used for on one day in UTC."""

    day: date


class ThreadUsage(msgspec.Struct):
    """What the runs of a thread have used: the total, and by model in the order of names."""

    total: UsageFigures
    models: list[ModelUsage]


class UsageReport(ThreadUsage):
    """What a contact or a caller has used: the total, by model, and by day and model."""

    first_day: date
    last_day: date
    days: list[DayUsage]


def usage_routes(threads: ThreadService) -> Router:
    """The routes of usage."""
    router = Router()
    tags = ("usage",)

    @router.get(
        "/api/v1/usage",
        scope=THREADS,
        query=UsageQuery,
        response=UsageReport,
        responses=LOOKUP_REFUSALS,
        tags=tags,
    )
    async def get_usage(request: Request) -> Response:
        """Show what a contact, or a caller, has used of models.

        Name a `contact_id`, or a caller by `provider` and `subject`, or both. A caller that is bound to a contact sees
        only what was used for its contact.
        """
        query = request.typed_query(UsageQuery)
        identity = cast(Admission, request.admission).identity
        if query.contact_id is not None:
            request.person = query.contact_id
        holder = _holder(query, identity.contact_id)
        first, last = _days(query)
        days = await threads.usage(identity, holder, first, last)
        models: dict[str, UsageTotal] = {}
        for one in days:
            models[one.model] = models.get(one.model, UsageTotal()) + one.total
        return JSONResponse(
            {
                "first_day": first,
                "last_day": last,
                **_by_model(ModelTotal(model, models[model]) for model in sorted(models)),
                "days": [{"day": one.day, "model": one.model, **_figures(one.total)} for one in days],
            }
        )

    @router.get(
        "/api/v1/threads/{id:uuid}/usage",
        scope=THREADS,
        response=ThreadUsage,
        responses={**LOOKUP_REFUSALS, 404: "There is no such thread."},
        tags=tags,
    )
    async def get_thread_usage(request: Request) -> Response:
        """Show what the runs of a thread have used of models."""
        identity = cast(Admission, request.admission).identity
        return JSONResponse(_by_model(await threads.thread_usage(identity, request.path_params["id"])))

    return router


def _holder(query: UsageQuery, own_contact: str | None) -> UsageHolder:
    """Return whose usage a query asks for. Raises `InputRefused` if it names nobody, or a caller by half."""
    if (query.subject is None) != (query.provider is None):
        missing = "provider" if query.provider is None else "subject"
        raise InputRefused(missing, "missing", "A caller is named by provider and subject together", None)
    caller = None if query.subject is None else caller_digest(query.provider, query.subject)
    contact_id = own_contact if query.contact_id is None else query.contact_id
    if contact_id is None and caller is None:
        raise InputRefused("contact_id", "missing", "Name a contact_id, or a caller by provider and subject", None)
    return UsageHolder(contact_id, caller)


def _days(query: UsageQuery) -> tuple[date, date]:
    """Return the first and the last day. Raises `InputRefused` for days that are no span, or too many."""
    last = query.last_day or datetime.now(UTC).date()
    if query.first_day is None:
        return date.fromordinal(max(last.toordinal() - DAYS + 1, 1)), last
    first = query.first_day
    if not timedelta() <= last - first < timedelta(days=MAX_DAYS):
        message = f"Give a first_day that is not after last_day, and at most {MAX_DAYS} days"
        raise InputRefused("first_day", "invalid_days", message, first.isoformat())
    return first, last


def _by_model(models: Iterable[ModelTotal]) -> dict[str, Any]:
    found = list(models)
    return {
        "total": _figures(sum((one.total for one in found), UsageTotal())),
        "models": [{"model": one.model, **_figures(one.total)} for one in found],
    }


def _figures(total: UsageTotal) -> dict[str, Any]:
    return {
        "calls": total.calls,
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
        "cached_tokens": total.cached_tokens,
        "cost": total.cost,
    }
