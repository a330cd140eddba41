"""The routes of ratings: what people think of the events of a thread."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from jimsapi.api.lookup import PageQuery, identity_of, utc_text
from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.asgi.routing import Router
from jimsapi.runs.scopes import THREADS
from jimsapi.runs.threads import ThreadService
from jimsapi.threads.facts import Feedback, Rating
from jimsapi.wire.answer import LOOKUP_REFUSALS

Comment = Annotated[str, msgspec.Meta(max_length=10_000)]


class GivenRating(msgspec.Struct):
    """What a person thinks of an event: 1 is good, -1 is bad."""

    rating: Literal[1, -1]
    comment: Comment | None = None


class FeedbackItem(GivenRating, kw_only=True):
    """The rating of an event."""

    event_id: UUID
    given_at: datetime


class FeedbackList(msgspec.Struct):
    """A page of the ratings of a thread's events, in the order of the events."""

    feedback: list[FeedbackItem]
    next: str | None


def feedback_routes(threads: ThreadService) -> Router:
    """The routes of ratings."""
    router = Router()
    tags = ("threads",)
    lookup_responses = {**LOOKUP_REFUSALS, 404: "There is no such thread."}
    rated = "/api/v1/threads/{id:uuid}/events/{event_id:uuid}/feedback"
    event_responses = {**lookup_responses, 404: "There is no such thread, or it has no such event."}

    @router.put(rated, scope=THREADS, body=GivenRating, status=204, responses=event_responses, tags=tags)
    async def rate_event(request: Request) -> Response:
        """Rate an event, such as an answer. An earlier rating is replaced. Best-effort sinks get the rating."""
        given = await request.typed(GivenRating)
        path = request.path_params
        await threads.rate(identity_of(request), path["id"], path["event_id"], Rating(given.rating, given.comment))
        return Response(status=204)

    @router.delete(rated, scope=THREADS, status=204, responses=event_responses, tags=tags)
    async def remove_rating(request: Request) -> Response:
        """Remove the rating of an event, if it has one."""
        await threads.rate(identity_of(request), request.path_params["id"], request.path_params["event_id"], None)
        return Response(status=204)

    @router.get(
        "/api/v1/threads/{id:uuid}/feedback",
        scope=THREADS,
        query=PageQuery,
        response=FeedbackList,
        responses=lookup_responses,
        tags=tags,
    )
    async def list_feedback(request: Request) -> Response:
        """List the ratings of a thread's events, in the order of the events."""
        query = request.typed_query(PageQuery)
        page = await threads.feedback(identity_of(request), request.path_params["id"], query.limit, query.after)
        return JSONResponse({"feedback": [feedback_item(one) for one in page.feedback], "next": page.next})

    return router


def feedback_item(given: Feedback) -> dict[str, Any]:
    """Return a rating as the JSON object that clients get."""
    rating = given.rating
    return {
        "event_id": given.event_id,
        "rating": rating.rating,
        "comment": rating.comment,
        "given_at": utc_text(given.given_at),
    }
