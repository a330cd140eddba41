"""A few slow clients of each kind: the healthy one is answered all the while, and everything is given back."""

import fcntl
import socket
import sys
import termios
from contextlib import closing

import pytest

from tests.faults.figures import Report
from tests.faults.slow import Size, measure
from tests.faults.slow_clients import KINDS, Kind, SlowClient

COUNT = 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_client_is_answered_beside_slow_ones(kind: str) -> None:
    report = Report()
    measure(report, Size(kind, COUNT, within=1.0, seconds=0.5, rate=20.0, warm_up=0.2, settles_within=2.0))
    seen = report.figures
    assert seen["slow clients"] == COUNT
    assert seen["slow clients that could not connect"] == 0
    for phase in ("before", "while they come", "during", "after"):
        assert seen[f"healthy {phase}: not answered 200"] == 0
    for phase in ("before", "while they come", "after"):  # it ends before their coming counts as over
        assert seen[f"healthy {phase}: requests"] > 0
    assert seen["descriptors peak"] > seen["descriptors before"]
    assert "descriptors after" not in report.broken


def test_a_slow_client_notices_that_its_server_has_closed_it() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    client = SlowClient(listening.getsockname()[1], Kind(b"hello NUMBER"), 7)
    with listening, closing(client):
        accepted, _ = listening.accept()
        assert accepted.recv(100) == b"hello 000007"
        client.look()
        assert client.closed_after is None
        accepted.close()
        client.look()
        assert client.closed_after is not None


@pytest.mark.parametrize("prompt", [False, True])
def test_only_a_prompt_client_takes_what_is_sent_to_it(prompt: bool) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    client = SlowClient(listening.getsockname()[1], Kind(b"hello", every=60.0, prompt=prompt), 7)
    with listening, closing(client):
        accepted, _ = listening.accept()
        with accepted:
            accepted.sendall(b"x" * 1000)
            client.step()
            assert unread(client) == (0 if prompt else 1000)


def unread(client: SlowClient) -> int:
    """Bytes that wait for the client in its kernel."""
    waiting = bytearray(4)
    fcntl.ioctl(client._socket, termios.FIONREAD, waiting)
    return int.from_bytes(waiting, sys.byteorder)
