"""FastAPI: the same answers in the way its documentation teaches, without a store, metrics or ids in headers."""

import os
import secrets
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

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


@app.post("/api/v1/chat", dependencies=[Depends(check_key)])
async def chat(inbound: Inbound) -> Answer:
    """Say back what was said."""
    said = inbound.message
    event = Event(event_type="comm.assistant_message", event_data={"role": "assistant", "content": said})
    return Answer(thread_id=uuid4(), created_new_thread=True, assistant_messages=[said], events=[event])
