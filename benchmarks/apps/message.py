"""The body of a message as msgspec checks it, for the frameworks that take msgspec's word."""

from typing import Any
from uuid import UUID

import msgspec


class Message(msgspec.Struct):
    """What a person said."""

    contact_id: str
    message: str
    thread_id: UUID | None = None
    thread_config: dict[str, Any] = {}  # msgspec copies it
    event_type: str = "comm.user_message"
    run_conversation_start_on_new_thread: bool = False


decode = msgspec.json.Decoder(Message).decode
"""Makes one of JSON. Made once, as msgspec's documentation advises."""
