"""Answers in the format of Deep Chat: pieces of a text, or an error."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from html import escape
from typing import Any

from jimsapi.asgi import Connection
from jimsapi.runs import RunResult
from jimsapi.threads import FileFacts
from jimsapi.wire import (
    AgentItem,
    Answered,
    Failed,
    FilesSent,
    Finished,
    Refusal,
    UserSaid,
    choices,
    data_event,
    failure,
    file_url,
    files_of,
    one_text,
    text_of,
)

SILENCE = " "
"""The text of a stream without any. The component shows an error for a stream that has only empty texts."""


def error_body(refusal: Refusal) -> dict[str, Any]:
    """Return an error in the format of Deep Chat."""
    return {"error": refusal.text}


def answer_body(request: Connection, result: RunResult) -> dict[str, Any]:
    """Return an answer in the format of Deep Chat. What a person may choose is a button, whose text it sends."""
    body: dict[str, Any] = _answer_text(result)
    files = [file for sent in files_of(result) for file in sent.files]
    if files:
        body["files"] = _files(request, files)
        if not body["text"]:
            del body["text"]
    return body


def _answer_text(result: RunResult) -> dict[str, str]:
    found = choices(result)
    if not found:
        return {"text": one_text(result)}
    buttons = "".join(
        f'<button class="deep-chat-button deep-chat-suggestion-button">{escape(text)}</button>' for text in found
    )
    html = f'<div class="deep-chat-temporary-message">{buttons}</div>'
    return {"text": one_text(result, with_lists=False), "html": html}


def history_body(request: Connection, said: Sequence[UserSaid | Answered]) -> list[dict[str, Any]]:
    """Return a conversation as the component takes it for `history` and `loadHistory`."""
    messages: list[dict[str, Any]] = []
    for one in said:
        if isinstance(one, UserSaid):
            role, text, files = "user", one.text, one.files
        else:
            role, text = "ai", text_of(one.items)
            files = [file for item in one.items if isinstance(item, FilesSent) for file in item.files]
        if text or files:
            shown = {"files": _files(request, files)} if files else {}
            messages.append({"role": role, **({"text": text} if text else {}), **shown})
    return messages


def _files(request: Connection, files: Sequence[FileFacts]) -> list[dict[str, str]]:
    return [{"src": file_url(request, file), "name": file.name, "type": _kind(file.type)} for file in files]


def _kind(media_type: str) -> str:
    """Return what the component calls a media type."""
    main = media_type.partition("/")[0]
    return main if main in ("image", "audio") else "any"


async def events(
    request: Connection, items: AsyncIterator[str | AgentItem | FilesSent | Finished | Failed]
) -> AsyncGenerator[bytes, None]:
    """Yield an answer as server-sent events.

    There is at least one with a text or with files, or the component shows an error.
    """
    empty = True
    async for item in items:
        if isinstance(item, str):
            empty = False
            yield data_event({"text": item})
        elif isinstance(item, FilesSent):
            empty = False
            yield data_event({"files": _files(request, item.files)})
        elif isinstance(item, Failed):
            yield data_event(error_body(Refusal(*failure(request, item.error))))
        elif isinstance(item, Finished) and empty:
            yield data_event({"text": SILENCE})
