"""Requests for files, and what is in the folder of a file store."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

PATH = "/api/v1/files"


async def upload(
    client: httpx.AsyncClient,
    content: Any = b"hello",
    *,
    contact: str | None = "ann",
    name: str | None = "a.txt",
    kind: str | None = "text/plain",
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """Send a file as the body of a request."""
    params = {key: value for key, value in {"contact_id": contact, "name": name}.items() if value is not None}
    kinds = {} if kind is None else {"content-type": kind}
    return await client.post(PATH, params=params, content=content, headers={**kinds, **(headers or {})})


async def stored(client: httpx.AsyncClient, content: Any = b"hello", **options: Any) -> str:
    """Send a file, and return its identifier. Fails if it is not stored."""
    answer = await upload(client, content, **options)
    assert answer.status_code == 201, answer.text
    file_id: str = answer.json()["file_id"]
    return file_id


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    """A body whose length is not known in advance."""
    for piece in pieces:
        yield piece


def kept(folder: Path) -> list[Path]:
    """The contents that are stored."""
    return sorted(folder.glob("files/*/*/*/content"))


def left(folder: Path) -> list[str]:
    """What is neither stored nor necessary: uploads that have not ended, and deleted files."""
    return sorted(
        str(path.relative_to(folder)) for name in ("incoming", "removed") for path in folder.glob(f"{name}/*")
    )
