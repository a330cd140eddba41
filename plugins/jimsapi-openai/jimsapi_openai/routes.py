"""The routes: `/v1/chat/completions`, and the list with one model. Other files have the other routes."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from jimsapi.asgi import EventStreamResponse, HTTPError, JSONResponse, Request, Response, Router, convert_body
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
    read_json,
    refusal,
    spoken_items,
    stop_left,
    watch_leaving,
    with_ignored,
    with_run,
)
from jimsapi_openai.answers import Completion, forbid_retries, in_error_form
from jimsapi_openai.conversation_routes import add_conversation_routes
from jimsapi_openai.placement import Placement
from jimsapi_openai.requests import ChatRequest, new_turn, without_effect
from jimsapi_openai.response_routes import add_response_routes
from jimsapi_openai.retries import Retries


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
    router: Router, service: RunService, names: ThreadNames, model_name: str | None, *, cancels: bool
) -> None:
    """Add the routes. `model_name` is the identifier of the model; None means the pipeline's name.

    `cancels`: a client that disconnects cancels its run.
    """
    model = Model(model_name or service.app.name or pipeline_name(service.app.pipeline), int(time.time()))
    router.reword_below("/v1", in_error_form)
    retries = None if cancels else Retries(names)  # a disconnect has cancelled the run of the first attempt
    placement = Placement(service, names)
    add_response_routes(router, service, placement, model.id, retries, cancels=cancels)
    add_conversation_routes(router, service, placement, names, retries)

    @router.post(
        "/v1/chat/completions", scope=CHAT, body=ChatRequest, response=dict[str, Any], tags=("openai",),
        reword=in_error_form, cancel_on_disconnect=cancels,
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
        Tools, system prompts and parameters of the model are ignored, because the pipeline decides these. The header
        `x-ignored-fields` of the answer names those fields of the request.
        """
        value = await read_json(request, service)
        body = convert_body(value, ChatRequest)
        turn = new_turn(request, body)
        if retries is not None:
            turn = msgspec.structs.replace(turn, key=retries.key_of(request, await request.body()))
        run = await begin_turn(request, service, names, turn, watched=bool(body.stream))
        on_left = partial(stop_left, service, run) if cancels else None
        response = await _answer(request, service, run, body, model.id, on_left)
        return with_ignored(request, with_run(request, service, run, response), without_effect(value))

    @router.get("/v1/models", scope=CHAT, response=ModelList, tags=("openai",), reword=in_error_form)
    async def list_models(request: Request) -> Response:
        """List the models. There is one: the pipeline."""
        return JSONResponse(ModelList([model]))

    @router.get(
        "/v1/models/{id}", scope=CHAT, response=Model, tags=("openai",), reword=in_error_form,
        responses={404: "There is no such model."},
    )  # fmt: skip
    async def show_model(request: Request) -> Response:
        """Show one model."""
        model_id: Any = request.path_params["id"]
        if model_id != model.id:
            raise HTTPError(404, f"There is no model {model_id[:100]!r} here, only {model.id!r}")
        return JSONResponse(model)


async def _answer(
    request: Request,
    service: RunService,
    run: LiveRun,
    body: ChatRequest,
    model: str,
    on_left: Callable[[], None] | None,
) -> Response:
    """The answer, whole or as a stream. `on_left` is called if the client disconnects before its end."""
    if not body.stream:
        return await _complete_answer(request, run, model, on_left)
    items = as_one_text(spoken_items(request, service, run))
    chunks = Completion(run, model).chunks(request, items, with_usage=body.wants_usage)
    stream = EventStreamResponse(chunks if on_left is None else watch_leaving(chunks, run, on_left))
    forbid_retries(stream)
    return stream


async def _complete_answer(request: Request, run: LiveRun, model: str, on_left: Callable[[], None] | None) -> Response:
    """The answer without streaming."""
    try:
        result = await answer_of(request, run, on_left)
    except DomainError as fault:
        answer = in_error_form(error_answer(request, fault))
        if refusal(run) is None:
            forbid_retries(answer)
        return answer
    return JSONResponse(Completion(run, model).whole(one_text(result), agent_items(result)))
