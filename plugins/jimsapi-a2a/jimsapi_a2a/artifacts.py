"""What a run says as artifacts, whole and in pieces.

A2A agents work together without sharing their thoughts and tools ("opaque execution" in the specification), so tool
calls and reasoning are not shown.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import orjson

from jimsapi.threads import NewEvent, Question
from jimsapi.wire import (
    MessageEnded,
    MessagePiece,
    ModelUsed,
    PersonAsked,
    SourceNamed,
    SpokenItem,
    button_texts,
)
from jimsapi_a2a.files import FilesShown
from jimsapi_a2a.parts import data_part, message, text_part, timestamp

_NOT_SHOWN = ("comm.", "context.", "state.", "message.", "question.", "once.", "jims.")
"""The beginnings of types of events that are no output of a task, such as messages of the user and states."""


class Speech:
    """Collects what a run has said: its artifacts, its questions and what its models have used."""

    def __init__(self) -> None:
        self.questions: list[PersonAsked] = []
        self.used: list[ModelUsed] = []
        self._begun: set[UUID] = set()

    def next(self, item: SpokenItem | FilesShown) -> Iterator[tuple[dict[str, Any], bool, bool]]:
        """Yield the artifacts of the next item, each with whether it continues an earlier one, and whether it ends."""
        match item:
            case MessagePiece(message_id, text) if text:
                yield _artifact(message_id, [text_part(text)]), message_id in self._begun, False
                self._begun.add(message_id)
            case MessageEnded(message_id) if message_id in self._begun:
                yield _artifact(message_id, [text_part("")]), True, True
            case FilesShown(message_id, parts):
                for file_id, part in parts:
                    yield _artifact(f"{message_id}-{file_id}", [part], part["filename"]), False, True
            case SourceNamed(event_id, url, title):
                yield _artifact(event_id, [data_part({"url": url, "title": title})], "answer.source"), False, True
            case NewEvent() if (artifact := _artifact_of(item)) is not None:
                yield artifact, False, True
            case PersonAsked():
                self.questions.append(item)
            case ModelUsed():
                self.used.append(item)

    @property
    def usage(self) -> list[dict[str, Any]]:
        """What the models have used."""
        return [
            {"model": one.model, "inputTokens": one.input_tokens, "outputTokens": one.output_tokens}
            for one in self.used
        ]


def artifacts_of(items: Iterable[SpokenItem | FilesShown], speech: Speech) -> list[dict[str, Any]]:
    """Return the whole artifacts of a run. `speech` collects the rest of what it said."""
    found = (update for item in items for update in speech.next(item))
    return [artifact for artifact, continues, _ in found if not continues]  # a stored message is one piece


def question_message(asked: Sequence[PersonAsked], task_id: str, context_id: str) -> dict[str, Any]:
    """Return the message with which a task waits for input: each question as a text, and as data for programs."""
    parts = [part for one in asked for part in (text_part(one.text), data_part(_question(one.question)))]
    return message(str(asked[0].event_id), "ROLE_AGENT", parts, taskId=task_id, contextId=context_id)


def _question(question: Question) -> dict[str, Any]:
    return {
        "questionId": str(question.question_id),
        "key": question.key,
        "text": question.text,
        "options": question.options,
        "schema": question.schema,
        "expiresAt": None if question.expires_at is None else timestamp(question.expires_at),
    }


def _artifact_of(event: NewEvent) -> dict[str, Any] | None:
    """Return an event that no other item stands for as an artifact; None if it is no output."""
    if buttons := button_texts(event):
        return _artifact(f"{event.event_id}-buttons", [data_part({"buttons": buttons})], "buttons")
    if event.event_type.startswith(_NOT_SHOWN):
        return None
    return _artifact(event.event_id, [data_part(orjson.Fragment(event.data))], event.event_type)


def _artifact(artifact_id: UUID | str, parts: list[dict[str, Any]], name: str | None = None) -> dict[str, Any]:
    named = {} if name is None else {"name": name}
    return {"artifactId": str(artifact_id), **named, "parts": parts}
