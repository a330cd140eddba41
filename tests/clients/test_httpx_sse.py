"""`httpx-sse`, in its sync and its async form."""

from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse, connect_sse

from tests.clients.conversation import Told, check_conversation, cut_short, messages
from tests.serving import Served

STREAM = "/api/v1/chat/stream"


def keep(sse: ServerSentEvent, events: list[Told]) -> None:
    events.append([sse.event, sse.json(), sse.id])


def request(contact: str, message: str, turns: list[list[Told]], events: list[Told]) -> dict[str, Any]:
    """What is asked for next: the stream of a message, or what is left of one that was cut."""
    if events:
        run_id = events[0][1]["run_id"]
        return {"method": "GET", "url": f"/api/v1/runs/{run_id}/stream", "headers": {"last-event-id": events[-1][2]}}
    thread_id = turns[0][0][1]["thread_id"] if turns else None
    return {
        "method": "POST",
        "url": STREAM,
        "json": {"contact_id": contact, "message": message, "thread_id": thread_id},
    }


def test_a_conversation_of_three_turns_goes_on_where_it_was_cut(served: Served, headers: dict[str, str]) -> None:
    sent = messages("httpx-sse")
    turns: list[list[Told]] = []
    cuts = 0
    with (
        cut_short(served, "httpx-sse", headers) as proxy,
        httpx.Client(base_url=proxy.url, headers=headers, trust_env=False, timeout=30) as client,
    ):
        for message in sent:
            events: list[Told] = []
            while not events or events[-1][2] != "end":
                try:
                    with connect_sse(client, **request("httpx-sse", message, turns, events)) as source:
                        for sse in source.iter_sse():
                            keep(sse, events)
                except httpx.RemoteProtocolError:
                    cuts += 1
            turns.append(events)
    assert cuts == 1
    check_conversation(served, turns, sent, headers)


@pytest.mark.anyio
async def test_the_same_without_blocking(served: Served, headers: dict[str, str]) -> None:
    sent = messages("httpx-sse-async")
    turns: list[list[Told]] = []
    cuts = 0
    with cut_short(served, "httpx-sse-async", headers) as proxy:
        async with httpx.AsyncClient(base_url=proxy.url, headers=headers, trust_env=False, timeout=30) as client:
            for message in sent:
                events: list[Told] = []
                while not events or events[-1][2] != "end":
                    try:
                        async with aconnect_sse(client, **request("httpx-sse-async", message, turns, events)) as source:
                            async for sse in source.aiter_sse():
                                keep(sse, events)
                    except httpx.RemoteProtocolError:
                        cuts += 1
                turns.append(events)
    assert cuts == 1
    check_conversation(served, turns, sent, headers)
