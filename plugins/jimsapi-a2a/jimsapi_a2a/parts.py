"""Parts of messages and artifacts: what a client sends as the pipeline reads it, and what A2A shows of a run."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from msgspec import UNSET

from jimsapi.threads import SentFile
from jimsapi.wire import NotAFile, file_of_base64, file_of_url, named_file
from jimsapi_a2a.errors import CONTENT_TYPE, A2AError, invalid
from jimsapi_a2a.params import Part

JSON = "application/json"
_URL_SAFE = str.maketrans("-_", "+/")


class Content(msgspec.Struct, frozen=True):
    """What a message says. `file_ids` are files that the server has, `files` come within the message."""

    texts: Sequence[str]
    data: Sequence[Any]
    files: Sequence[SentFile]
    file_ids: Sequence[str]

    @property
    def text(self) -> str:
        """The texts of the message as one."""
        return "\n".join(self.texts)

    @property
    def message(self) -> str:
        """The message for the pipeline: its texts, then its data as JSON, since a model reads only text."""
        return "\n".join([*self.texts, *(orjson.dumps(value).decode() for value in self.data)])


def content_of(parts: Sequence[Part]) -> Content:
    """Return what the parts of a message say.

    Raises `A2AError` if a part has no content or several, or if the server cannot take a file.
    """
    texts: list[str] = []
    data: list[Any] = []
    files: list[SentFile] = []
    file_ids: list[str] = []
    for number, part in enumerate(parts):
        field = f"message.parts.{number}"
        _check_one(field, part)
        if part.text is not None:
            texts.append(part.text)
        elif part.raw is not None or part.url is not None:
            file_id = None if part.url is None else named_file(part.url)
            if file_id is None:
                files.append(_file(field, part))
            else:
                file_ids.append(file_id)
        else:
            data.append(part.data)
    return Content(texts, data, files, file_ids)


def _check_one(field: str, part: Part) -> None:
    count = sum(content is not None for content in (part.text, part.raw, part.url))
    if not count and part.data is UNSET:
        raise invalid(field, "A part needs a text, raw, url or data")
    if count + (part.data is not UNSET and part.data is not None) > 1:
        raise invalid(field, "A part has only one of text, raw, url and data")


def _file(field: str, part: Part) -> SentFile:
    """Return the file within a part. The server fetches no URL, so a URL must be one that has the content."""
    name, kind = part.filename or "", part.media_type or ""
    try:
        if part.url is None:
            return file_of_base64(_plain(part.raw or ""), name, kind)
    except NotAFile as error:
        raise invalid(f"{field}.raw", str(error)) from None
    try:
        return file_of_url(part.url, name, kind)
    except NotAFile as error:
        raise A2AError(CONTENT_TYPE, f"{field}.url: {error}", violations=[(f"{field}.url", str(error))]) from None


def _plain(raw: str) -> str:
    """Return base64 in its usual alphabet and with its padding. The JSON form of bytes allows both to be missing."""
    text = raw.translate(_URL_SAFE)
    return text + "=" * (-len(text) % 4)


def timestamp(time: datetime) -> str:
    """Return a time as A2A writes it (specification, section 5.6.1): in UTC, with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_part(text: str) -> dict[str, Any]:
    """Return a part with a text."""
    return {"text": text}


def data_part(data: Any) -> dict[str, Any]:
    """Return a part with a JSON value."""
    return {"data": data, "mediaType": JSON}


def message(message_id: str, role: str, parts: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a message. `more` are further fields, of which those that are None are left out."""
    fields = {name: value for name, value in more.items() if value is not None}
    return {"messageId": message_id, "role": role, "parts": list(parts), **fields}
