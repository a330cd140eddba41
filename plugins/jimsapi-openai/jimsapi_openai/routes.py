"""The routes: `/v1/chat/completions`, and the list with one model."""

import time
from functools import partial
from typing import Any

import msgspec

from jimsapi.asgi import EventStreamResponse, HTTPError, JSONResponse, Request, Response, Router
from jimsapi.runs import CHAT, LiveRun, RunService, pipeline_name
from jimsapi.threads import DomainError
from jimsapi.wire import (
    EVENT_STREAM,
    REFUSALS,
    ThreadNames,
    agent_items,
    answer_of,
    as_one_text,
    begin_turn,
    error_answer,
    one_text,
    read_body,
    refusal,
    reworded,
    spoken_items,
    with_run,
)
from jimsapi_openai.answers import Completion, error
from jimsapi_openai.requests import ChatRequest, new_turn

NO_RETRY = (b"x-should-retry", b"false")
"""A header that disables the retries of the SDKs. Without it they send the message again after most errors, although
the server has stored it."""

_in_error_form = partial(reworded, error)


class Model(msgspec.Struct):
    """A model in OpenAI's format."""

    id: str
    created: int
    object: str = "model"
    owned_by: str = "jimsapi"


class ModelList(msgspec.Struct):
    """The list of models."""

    data: list[Model]
    object: str = "list"


def add_routes(
    router: Router, service: RunService, contact_header: str, thread_header: str, model_name: str | None
) -> None:
    """Add the routes. `model_name` is the identifier of the model; None means the pipeline's name."""
    names = ThreadNames("openai", contact_header, thread_header)
    model = Model(model_name or service.app.name or pipeline_name(service.app.pipeline), int(time.time()))

    @router.post(
        "/v1/chat/completions", scope=CHAT, body=ChatRequest, tags=("openai",), reword=_in_error_form,
        responses={
            200: ("A `chat.completion`, or with `stream` the chunks of one.", EVENT_STREAM),
            **REFUSALS,
            409: "The run was cancelled, or the thread is busy and no message waits there.",
            500: "The pipeline failed; the message is stored.",
            504: "The pipeline took too long; the message is stored.",
        },
    )  # fmt: skip
    async def complete(request: Request) -> Response:
        """Answer the newest message of a conversation, in the format of OpenAI's chat completions.

        Only the user's last message in `messages` is used; the earlier ones are in the thread, which a header names.
        Tools, system prompts and parameters of the model are ignored, because the pipeline decides these.
        """
        body = await read_body(request, service, ChatRequest)
        turn = new_turn(request, body)
        run = await begin_turn(request, service, names, turn, watched=bool(body.stream))
        if not body.stream:
            return with_run(request, service, run, await _complete_answer(request, run, model.id))
        items = as_one_text(spoken_items(request, service, run))
        stream = EventStreamResponse(Completion(run, model.id).chunks(request, items, with_usage=body.wants_usage))
        stream.raw_headers.append(NO_RETRY)
        return with_run(request, service, run, stream)

    @router.get("/v1/models", scope=CHAT, response=ModelList, tags=("openai",), reword=_in_error_form)
    async def list_models(request: Request) -> Response:
        """List the models. There is one: the pipeline."""
        return JSONResponse(ModelList([model]))

    @router.get(
        "/v1/models/{id}", scope=CHAT, response=Model, tags=("openai",), reword=_in_error_form,
        responses={404: "There is no such model."},
    )  # fmt: skip
    async def show_model(request: Request) -> Response:
        """Show one model."""
        model_id: Any = request.path_params["id"]
        if model_id != model.id:
            raise HTTPError(404, f"There is no model {model_id[:100]!r} here, only {model.id!r}")
        return JSONResponse(model)


async def _complete_answer(request: Request, run: LiveRun, model: str) -> Response:
    """The answer without streaming."""
    try:
        result = await answer_of(request, run)
    except DomainError as fault:
        answer = _in_error_form(error_answer(request, fault))
        if refusal(run) is None:
            answer.raw_headers.append(NO_RETRY)
        return answer
    return JSONResponse(Completion(run, model).whole(one_text(result), agent_items(result)))
