"""The conversation that every client has: three messages of one thread to `tests.apps.scripted`, the second one's
stream cut in mid-event while its run goes on."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

from tests.clients.cutting import CuttingProxy
from tests.serving import Served

CHAT = "/api/v1/chat"
PATIENCE = 30.0
STREAMED = ("Grü", "ße\u2028😀\r\n\x85 to all")
"""What lines of an event stream, lines of Python's and ASCII cannot hold."""
MARK = "Cut here"

Told = list[Any]
"""An event as a client got it: its name, its data, its id."""


def messages(door: str) -> list[str]:
    """The three messages. The run of the second one waits until somebody opens `door`."""
    said = "status Looking; " + "; ".join(f"stream {piece}" for piece in STREAMED)
    plain = f"{said}; event found; see"
    return [plain, f"{said}; stream {MARK}; hold {door}; event found; see", plain]


@contextmanager
def cut_short(served: Served, door: str, headers: dict[str, str]) -> Iterator[CuttingProxy]:
    """A way to the server that breaks in the second turn; once the client is back, the run goes on."""

    def open_door() -> None:
        if proxy.resumed.wait(PATIENCE):
            with served.client(headers=headers) as client:
                body = {"contact_id": "doorman", "message": f"open {door}"}
                client.post(CHAT, json=body).raise_for_status()

    with CuttingProxy(served.port, MARK.encode()) as proxy:
        opener = Thread(target=open_door)
        opener.start()
        try:
            yield proxy
        finally:
            proxy.resumed.set()  # else a client that never came back would be waited for
            opener.join()


def check_conversation(served: Served, turns: Sequence[list[Told]], sent: list[str], headers: dict[str, str]) -> None:
    """Hold what a client was told of the three turns to what it should have been told, and to what is stored."""
    assert len(turns) == len(sent)
    thread_id = turns[0][0][1]["thread_id"]
    stored = []
    for number, events in enumerate(turns):
        streamed = [*STREAMED, MARK] if "hold" in sent[number] else [*STREAMED]
        seen = json.dumps(sent[: number + 1])
        assert [name for name, *_ in events] == [
            "started", "status", *["delta"] * (len(streamed) + 1), *["event"] * 3, "result",
        ]  # fmt: skip
        assert [position for *_, position in events] == [*map(str, range(1, len(events))), "end"]
        started, status, *deltas = [data for name, data, _ in events if name in ("started", "status", "delta")]
        assert started == {"run_id": started["run_id"], "thread_id": thread_id, "created_new_thread": number == 0}
        assert status == {"status": "Looking", "type": "step"}
        assert [delta["content"] for delta in deltas] == [*streamed, seen]
        found, *spoken = [data for name, data, _ in events if name == "event"]
        assert (found["event_type"], found["event_data"]) == ("rag.step", {"text": "found"})
        assert [event["event_data"]["content"] for event in spoken] == ["".join(streamed), seen]
        assert [event["event_id"] for event in spoken] == [deltas[0]["message_id"], deltas[-1]["message_id"]]
        result = events[-1][1]
        assert (result["thread_id"], result["created_new_thread"]) == (thread_id, number == 0)
        assert result["assistant_messages"] == ["".join(streamed), seen]
        stored += [sent[number], "".join(streamed), seen]
    with served.client(headers=headers) as client:
        page = client.get(f"/api/v1/threads/{thread_id}/events").raise_for_status().json()
    said = [event["event_data"]["content"] for event in page["events"] if event["event_type"].startswith("comm.")]
    assert said == stored
