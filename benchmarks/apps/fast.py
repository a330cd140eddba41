"""FastAPI: the same answers in the way its documentation teaches, without a store, metrics or ids in headers. Answers
have declared types, so that Pydantic encodes them: faster than orjson would, which FastAPI has deprecated."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from benchmarks.apps.peers import EVENTS, HELLO, PAUSE, ROUTES

KEY = os.environ["BENCHMARK_KEY"].encode()

app = FastAPI()
bearer = HTTPBearer()


class Inbound(BaseModel):
    """The body of a chat."""

    contact_id: str
    message: str
    thread_id: UUID | None = None
    thread_config: dict[str, Any] = Field(default_factory=lambda: {"interface": "api"})
    event_type: str = "comm.user_message"
    run_conversation_start_on_new_thread: bool = False


class Part(BaseModel):
    """The parameters of a path."""

    thing: str
    part: int


class Event(BaseModel):
    """An event of the answer."""

    event_type: str
    event_data: dict[str, Any]


class Answer(BaseModel):
    """The answer to a chat."""

    thread_id: UUID
    created_new_thread: bool
    assistant_messages: list[str]
    events: list[Event]


async def check_key(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> None:
    """Refuse a wrong key."""
    if not secrets.compare_digest(credentials.credentials.encode(), KEY):
        raise HTTPException(401, "Unauthorized")


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@app.get("/hello")
async def hello() -> dict[str, str]:
    """Say hello."""
    return HELLO


@app.get("/stream", response_class=EventSourceResponse)
async def stream() -> AsyncIterator[ServerSentEvent]:
    """Count."""
    for number in range(EVENTS):
        yield ServerSentEvent(data=number)


@app.post("/messages", dependencies=[Depends(check_key)])
@app.post("/api/v1/chat", dependencies=[Depends(check_key)])
async def chat(inbound: Inbound) -> Answer:
    """Say back what was said."""
    if PAUSE:
        await asyncio.sleep(PAUSE)
    said = inbound.message
    event = Event(event_type="comm.assistant_message", event_data={"role": "assistant", "content": said})
    return Answer(thread_id=uuid4(), created_new_thread=True, assistant_messages=[said], events=[event])


async def part(thing: str, part: int) -> Part:
    """Give the parameters back."""
    return Part(thing=thing, part=part)


for number in range(ROUTES):
    app.get(f"/things{number}/{{thing}}/parts/{{part}}")(part)
