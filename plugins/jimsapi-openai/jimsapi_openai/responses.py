"""Responses as objects and as streams."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.asgi import Request
from jimsapi.runs import LiveRun, RunCancelled
from jimsapi.threads import RunStatus, StoredRun
from jimsapi.wire import (
    TRANSIENT,
    Failed,
    Finished,
    ModelUsed,
    PiecesMissed,
    Refusal,
    SpokenItem,
    data_event,
    failure,
)
from jimsapi_openai.answers import BYTES_A_TOKEN, DONE, error
from jimsapi_openai.ids import conversation_id, response_id
from jimsapi_openai.items import Speech

_STATUS = {
    RunStatus.QUEUED: "queued",
    RunStatus.RUNNING: "in_progress",
    RunStatus.COMPLETED: "completed",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "cancelled",
    RunStatus.INTERRUPTED: "failed",
}
_INTERRUPTED = "The server stopped before the response was complete"
_ENDS = {"error", "response.completed", "response.failed", "response.incomplete"}


class Head(msgspec.Struct, frozen=True):
    """What all objects of one response share.

    `message` is the text that it answers, for the estimate of `usage`. `ended_at` is the time, in seconds, at which a
    stored run ended.
    """

    run_id: UUID
    thread_id: UUID | None
    model: str
    message: str
    metadata: dict[str, Any]
    background: bool = False
    previous_response_id: str | None = None
    stored: bool = True
    ended_at: int | None = None

    def response(
        self,
        status: str,
        output: Sequence[dict[str, Any]] = (),
        *,
        usage: dict[str, Any] | None = None,
        failure_text: str | None = None,
    ) -> dict[str, Any]:
        """Return the response with a status. Fields of the request that have no effect have the API's defaults."""
        failed = None if failure_text is None else {"code": "server_error", "message": failure_text}
        return {
            "id": response_id(self.run_id),
            "object": "response",
            "created_at": (self.run_id.int >> 80) // 1000,  # a UUID of version 7 begins with its time
            "completed_at": self.ended_at,
            "status": status,
            "background": self.background,
            "conversation": None if self.thread_id is None else {"id": conversation_id(self.thread_id)},
            "error": failed,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": None,
            "max_tool_calls": None,
            "metadata": self.metadata,
            "model": self.model,
            "output": list(output),
            "parallel_tool_calls": True,
            "previous_response_id": self.previous_response_id,
            "prompt_cache_key": None,
            "reasoning": None,
            "safety_identifier": None,
            "service_tier": "default",
            "store": self.stored,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": 0,
            "top_p": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "truncation": "disabled",
            "usage": usage,
            "user": None,
        }

    def completed(self, speech: Speech) -> dict[str, Any]:
        """Return the completed response. If it is not known when it ended, it ended now."""
        usage = usage_of(speech.used, self.message, speech.text)
        ended = self if self.ended_at is not None else msgspec.structs.replace(self, ended_at=int(time.time()))
        return ended.response("completed", speech.output, usage=usage)

    def begun(self, run: LiveRun) -> dict[str, Any]:
        """Return the response of a run that has just begun."""
        return self.response(_STATUS[run.status])

    def of_stored(self, run: StoredRun, speech: Speech) -> dict[str, Any]:
        """Return the response of a stored run. `speech` is what it said."""
        if run.status is RunStatus.COMPLETED:
            return self.completed(speech)
        has_failed = run.status in (RunStatus.FAILED, RunStatus.INTERRUPTED)
        text = (run.error or _INTERRUPTED) if has_failed else None
        return self.response(_STATUS[run.status], failure_text=text)


def usage_of(used: Sequence[ModelUsed], message: str, answer: str) -> dict[str, Any]:
    """Return the tokens that the pipeline's models have used.

    If the pipeline does not say, this is an estimate by the length of the texts.
    """
    if used:
        sent, received = sum(one.input_tokens for one in used), sum(one.output_tokens for one in used)
    else:
        sent, received = (-(-len(text.encode()) // BYTES_A_TOKEN) for text in (message, answer))
    return {
        "input_tokens": sent,
        "input_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in used), "cache_write_tokens": 0},
        "output_tokens": received,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": sent + received,
    }


async def stream_of(
    request: Request,
    head: Head,
    speech: Speech,
    items: AsyncIterator[SpokenItem | PiecesMissed],
    after: int = -1,
) -> AsyncGenerator[bytes, None]:
    """Yield the events of a response as server-sent events: those whose number is greater than `after`.

    The same items have the same numbers each time. If pieces that the client may have are no longer available, the
    numbers of the rest are unknown, and the client gets only the end, which has the whole response.
    """
    number = 0
    only_end = False
    async for event in _events(request, head, speech, items):
        if event is None:
            only_end = only_end or number <= after
            continue
        if only_end:
            if event["type"] not in _ENDS:
                continue
            number = max(number, after + 1)
        if number > after:
            yield b"event: %s\n" % event["type"].encode() + data_event({**event, "sequence_number": number})
        number += 1
    yield DONE


async def _events(
    request: Request, head: Head, speech: Speech, items: AsyncIterator[SpokenItem | PiecesMissed]
) -> AsyncIterator[dict[str, Any] | None]:
    """Yield the events of a response without their numbers, and None where pieces are missing."""
    begun = msgspec.structs.replace(head, ended_at=None).response("in_progress")
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    async for item in items:
        match item:
            case PiecesMissed():
                yield None
            case Finished():
                for event in speech.end():
                    yield event
                yield {"type": "response.completed", "response": head.completed(speech)}
            case Failed(RunCancelled()):  # the API has no event for a cancelled response, and clients fail at new ones
                cancelled = head.response("cancelled", speech.output)
                yield {"type": "response.incomplete", "response": cancelled}
            case Failed(fault):
                status, text = failure(request, fault)
                code = error(Refusal(status, text))["error"]["code"]
                yield {"type": "error", "code": code, "message": text, "param": None}
                if not isinstance(fault, TRANSIENT):
                    yield {
                        "type": "response.failed",
                        "response": head.response("failed", speech.output, failure_text=text),
                    }
            case _:
                for event in speech.next(item):
                    yield event
