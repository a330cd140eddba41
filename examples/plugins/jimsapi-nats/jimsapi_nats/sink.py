"""The event sink. It publishes a copy of every event after the event is stored."""

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Self

import nats
from jimsapi import Event, Secret
from jimsapi.plugins import StartError

logger = logging.getLogger("jimsapi_nats")

TIMEOUT = 4
"""Seconds for connecting, and for a batch with its repetitions. jimsapi would end a batch after 10 seconds."""

RECEIPT = 1
"""Seconds within which the server confirms a batch. A batch without a receipt is sent again."""


class NatsSink:
    """Publishes each event as a JSON object. The header `Nats-Msg-Id` lets JetStream ignore repeated messages.

    The client reconnects by itself. If that takes too long, the batch counts as failed.
    """

    name = "nats"

    def __init__(self, url: Secret, subject: str) -> None:
        self._url = url
        self._subject = subject

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(TIMEOUT):
                self._client = await nats.connect(
                    self._url.reveal(),
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,
                    error_cb=_log,
                )
        except (OSError, ValueError, nats.errors.Error) as error:
            raise StartError(f"--nats-url: cannot connect to the NATS server: {type(error).__name__}") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def deliver(self, events: Sequence[Event]) -> None:
        """Publish a batch, and wait until the server has it. Tries again while the client reconnects."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                try:
                    return await self._publish(events)
                except (OSError, nats.errors.Error):
                    await asyncio.sleep(0.1)

    async def _publish(self, events: Sequence[Event]) -> None:
        if not self._client.is_connected:
            raise ConnectionError("the NATS server cannot be reached")
        for event in events:
            await self._client.publish(self._subject, _payload(event), headers={"Nats-Msg-Id": str(event.event_id)})
        await self._client.flush(RECEIPT)  # nats-py sends this PING before the messages in its buffer
        await self._client.flush(RECEIPT)  # and this one after them


async def _log(error: Exception) -> None:
    """Log only the kind of an error of the client: its text may have the URL."""
    logger.warning("the connection to the NATS server failed: %s", type(error).__name__)


def _payload(event: Event) -> bytes:
    shown = {
        "event_id": str(event.event_id),
        "thread_id": str(event.thread_id),
        "created_at": event.created_at.isoformat(),
        "event_type": event.event_type,
        "event_data": event.event_data,
    }
    return json.dumps(shown, ensure_ascii=False).encode()
