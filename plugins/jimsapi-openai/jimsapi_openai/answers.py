"""Answers in OpenAI's format: completions, chunks of completions, and errors."""

import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from jimsapi.asgi import Connection
from jimsapi.runs import LiveRun
from jimsapi.wire import Failed, Finished, Refusal, data_event, failure

BYTES_A_TOKEN = 4
"""An estimate, for `usage`."""

DONE = b"data: [DONE]\n\n"

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


class Completion:
    """The answer of a run, as a completion of the model `model`."""

    def __init__(self, run: LiveRun, model: str) -> None:
        self._prompt = run.inbound.message
        self._head = {"id": f"chatcmpl-{run.known_as.hex}", "created": int(time.time()), "model": model}

    def whole(self, text: str) -> dict[str, Any]:
        """Return the completion as one object."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage(self._prompt, text)}

    async def chunks(
        self, request: Connection, items: AsyncIterator[str | Finished | Failed], *, with_usage: bool
    ) -> AsyncIterator[bytes]:
        """Yield the completion as server-sent events as its pieces arrive. After an error there is no `[DONE]`."""
        yield self._chunk({"role": "assistant", "content": ""})
        pieces: list[str] = []
        async for item in items:
            if isinstance(item, str):
                pieces.append(item)
                yield self._chunk({"content": item})
            elif isinstance(item, Failed):
                yield data_event(error(Refusal(*failure(request, item.error))))
                return
        yield self._chunk({}, "stop")
        if with_usage:
            yield self._event([], usage=usage(self._prompt, "".join(pieces)))
        yield DONE

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        return self._event([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def _event(self, choices: list[Any], **more: Any) -> bytes:
        return data_event({**self._head, "object": "chat.completion.chunk", "choices": choices, **more})


def usage(prompt: str, answer: str) -> dict[str, int]:
    """Return an estimate of the tokens by the length of the texts. The pipeline's calls of models are not known."""
    sent, received = (-(-len(text.encode()) // BYTES_A_TOKEN) for text in (prompt, answer))
    return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}


def error(refusal: Refusal) -> dict[str, Any]:
    """Return an error in the format that the SDKs parse."""
    status = refusal.status
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    code = _CODES.get(status) or HTTPStatus(status).name.lower()
    return {"error": {"message": refusal.text, "type": kind, "param": refusal.field, "code": code}}
