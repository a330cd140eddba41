"""Requests for files, messages that have some, and what is in the folder of a file store."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

PATH = "/api/v1/files"
CHAT = "/api/v1/chat"


@asynccontextmanager
async def serving(
    pipeline: Callable[[ThreadContext], Any], folder: Path, *, private: tuple[str, ...] = (), **options: Any
) -> AsyncIterator[TestClient]:
    """A client of a server in this process. `private` are the types of events that callers do not see."""
    app = JimsApp(pipeline, private_events=private)
    async with TestClient(create_api(app, store="memory:", files_store=f"file://{folder}", **options)) as client:
        yield client


async def say(
    client: TestClient, message: str = "go", *files: str, user: str | None = None, **fields: Any
) -> dict[str, Any]:
    """Send a message with files, and return the answer. Fails if it is refused."""
    headers = {} if user is None else {"x-user": user}
    body = {"contact_id": "ann", "message": message, "files": files, **fields}
    answer = await client.post(CHAT, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


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
