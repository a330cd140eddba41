"""Answers in OpenAI's format: completions, chunks of completions, and errors."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any

from jimsapi.asgi import Connection, Response
from jimsapi.runs import LiveRun
from jimsapi.wire import (
    AgentItem,
    Failed,
    FilesSent,
    Finished,
    ModelUsed,
    ReasoningPiece,
    Refusal,
    SourceNamed,
    data_event,
    failure,
    reworded,
)

BYTES_A_TOKEN = 4
"""An estimate, for `usage` of a pipeline that does not say what its models have used."""

DONE = b"data: [DONE]\n\n"

_NO_RETRY = (b"x-should-retry", b"false")

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


class Completion:
    """The answer of a run, as a completion of the model `model`."""

    def __init__(self, run: LiveRun, model: str) -> None:
        self._prompt = run.inbound.message
        self._head = {"id": f"chatcmpl-{run.known_as.hex}", "created": int(time.time()), "model": model}

    def whole(self, text: str, done: Sequence[AgentItem]) -> dict[str, Any]:
        """Return the completion as one object. `done` is what the agent did."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        reasoning = "".join(item.text for item in done if isinstance(item, ReasoningPiece))
        sources = [_annotation(item.url, item.title) for item in done if isinstance(item, SourceNamed) and item.url]
        if reasoning:
            message["reasoning_content"] = reasoning
        if sources:
            message["annotations"] = sources
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        used = usage([item for item in done if isinstance(item, ModelUsed)], self._prompt, text)
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": used}

    async def chunks(
        self,
        request: Connection,
        items: AsyncIterator[str | AgentItem | FilesSent | Finished | Failed],
        *,
        with_usage: bool,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the completion as server-sent events as its pieces arrive. After an error there is no `[DONE]`.

        Tool calls that the server made have no place here: a client would make them too.
        """
        yield self._chunk({"role": "assistant", "content": ""})
        pieces: list[str] = []
        used: list[ModelUsed] = []
        async for item in items:
            match item:
                case str():
                    pieces.append(item)
                    yield self._chunk({"content": item})
                case ReasoningPiece(_, text):
                    yield self._chunk({"reasoning_content": text})
                case SourceNamed(_, str(url), title):
                    yield self._chunk({"annotations": [_annotation(url, title)]})
                case ModelUsed():
                    used.append(item)
                case Failed(fault):
                    yield data_event(error(Refusal(*failure(request, fault))))
                    return
        yield self._chunk({}, "stop")
        if with_usage:
            yield self._event([], usage=usage(used, self._prompt, "".join(pieces)))
        yield DONE

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return self._event([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def _event(self, choices: list[Any], **more: Any) -> bytes:
        return data_event({**self._head, "object": "chat.completion.chunk", "choices": choices, **more})


def usage(used: Sequence[ModelUsed], prompt: str, answer: str) -> dict[str, Any]:
    """Return the tokens that the pipeline's models have used.

    If the pipeline does not say, this is an estimate by the length of the texts.
    """
    if not used:
        sent, received = (-(-len(text.encode()) // BYTES_A_TOKEN) for text in (prompt, answer))
        return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}
    sent, received = sum(one.input_tokens for one in used), sum(one.output_tokens for one in used)
    return {
        "prompt_tokens": sent,
        "completion_tokens": received,
        "total_tokens": sent + received,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in used)},
    }


def _annotation(url: str, title: str | None) -> dict[str, Any]:
    """A source in OpenAI's format. It belongs to the whole text, so its place in the text is empty."""
    citation = {"url": url, "title": title or url, "start_index": 0, "end_index": 0}
    return {"type": "url_citation", "url_citation": citation}


def error(refusal: Refusal) -> dict[str, Any]:
    """Return an error in the format that the SDKs parse."""
    status = refusal.status_code
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    code = _CODES.get(status) or HTTPStatus(status).name.lower()
    return {"error": {"message": refusal.text, "type": kind, "param": refusal.field, "code": code}}


def in_error_form(answer: Response) -> Response:
    """Return an error answer in the format that the SDKs parse.

    The SDKs repeat a request after every 409 and 5xx. A 501, and a 409 that does not name a time for the repetition,
    would fail again, so the answer forbids that.
    """
    response = reworded(error, answer)
    if response.status == 501 or (
        response.status == 409 and not any(name == b"retry-after" for name, _ in response.raw_headers)
    ):
        forbid_retries(response)
    return response


def forbid_retries(response: Response) -> None:
    """Add the header that disables the retries of the SDKs.

    Without it they send a message again after most errors, although the server has stored it.
    """
    if _NO_RETRY not in response.raw_headers:
        response.raw_headers.append(_NO_RETRY)
