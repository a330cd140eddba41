"""Routes with which callers rate the answers of runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import msgspec
from jimsapi import HTTPError, Options, Request, Response, Router, hookimpl, option
from jimsapi.plugins import Settings
from jimsapi.runs import Runs, RunService

if TYPE_CHECKING:
    from jimsapi_feedback.ratings import Ratings


class FeedbackOptions(Options, prefix="feedback"):
    """`--feedback-file`, and a variable and a keyword of the same name."""

    file: Path | None = option(help="An SQLite file for the feedback. Without it, a restart deletes all feedback.")


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """What a person thinks of the answer of a run."""

    rating: Literal[1, -1]
    comment: Annotated[str, msgspec.Meta(max_length=2000)] = ""


@hookimpl
def jimsapi_options() -> type[Options]:
    return FeedbackOptions


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> "Ratings":
    """Add the routes, and return the database, which jimsapi enters before the first request."""
    from jimsapi_feedback.ratings import Ratings

    ratings = Ratings(settings.get(FeedbackOptions).file)
    runs = Runs(service)

    async def visible_run(request: Request) -> UUID:
        """Return the run's id if the caller may see it. If not, the client gets 404."""
        return (await runs.run(request.admission, request.path_params["run_id"])).run_id

    @router.put("/api/v1/runs/{run_id:uuid}/feedback", body=Feedback, status=204)
    async def rate(request: Request) -> Response:
        """Store feedback for a run. It replaces earlier feedback."""
        run_id = await visible_run(request)
        feedback = await request.typed(Feedback)
        await ratings.put(run_id, feedback.rating, feedback.comment)
        return Response(status=204)

    @router.get("/api/v1/runs/{run_id:uuid}/feedback", response=Feedback)
    async def show(request: Request) -> Feedback:
        """Return the feedback for a run."""
        found = await ratings.get(await visible_run(request))
        if found is None:
            raise HTTPError(404, "There is no feedback for this run")
        return msgspec.convert({"rating": found[0], "comment": found[1]}, Feedback)

    return ratings
