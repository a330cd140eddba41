"""WebSockets that are refused, or whose clients read nothing, on the real server."""

import json
import socket
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode

from jimsapi.api.websocket import MAX_BEGUN
from jimsapi.server.memory import COLLECT_AFTER
from tests.faults.measured import KEY, MeasuredServer
from tests.faults.memory import scrape
from tests.faults.slow_clients import handshake
from tests.ports import free_port
from tests.raw import TIMEOUT, ask, connect, metric, read_answer, request
from tests.serving import Served
from tests.waiting import eventually

HANDSHAKE = (
    "connection: keep-alive, Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)
WS = "/api/v1/chat/ws"
MIB = 1_048_576


def frame(data: bytes) -> bytes:
    return Frame(Opcode.TEXT, data).serialize(mask=True)


@pytest.mark.parametrize("behind", [b"", frame(b"{}"), b"rubbish"], ids=["nothing", "a frame", "rubbish"])
def test_refused_handshakes_are_logged_as_requests_and_not_as_errors(behind: bytes) -> None:
    bad = "authorization: Bearer wrong"
    with Served("--api-key", "k" * 20) as served:
        statuses = [
            ask(served.port, request("GET", path, *HANDSHAKE, *more) + behind)[0]
            for path, more in ((WS, (bad,)), ("/nowhere", ()), (WS, ("origin: http://evil.example",)))
        ]
        faulty = ask(served.port, request("GET", WS, *HANDSHAKE[:3]) + behind)[0]
        served.stop()
        lines = [line for line in served.stderr.splitlines() if "method=WEBSOCKET" in line]
        assert statuses == [401, 404, 403]
        assert faulty == 400
        assert [line.split("status=")[1].split()[0] for line in lines] == ["401", "404", "403"]
        assert " ERROR " not in served.stderr
        assert "Traceback" not in served.stderr


def test_a_handshake_may_be_pipelined_and_have_a_large_cookie() -> None:
    handshake = request("GET", WS, *HANDSHAKE, f"cookie: {'c' * 9_000}", *("x: y" for _ in range(200)))
    with Served() as served, closing(connect(served.port)) as client:
        client.sendall(request("GET", "/nowhere") + handshake)
        assert [read_answer(client)[0] for _ in range(2)] == [404, 101]
        client.close()
        eventually(lambda: "method=WEBSOCKET" in served.stderr)
        assert " WARNING " not in served.stderr.partition("method=GET")[2]


def test_a_text_message_that_is_no_utf_8_closes_with_1007_and_is_no_error() -> None:
    with Served() as served, closing(connect(served.port)) as client:
        client.sendall(request("GET", WS, *HANDSHAKE))
        assert read_answer(client)[0] == 101
        client.sendall(frame(b"\xff\xfe"))
        assert client.recv(4)[2:] == (1007).to_bytes(2, "big")
        client.close()
        eventually(lambda: "method=WEBSOCKET" in served.stderr)
        assert " ERROR " not in served.stderr


def memory(served: Served, field: str) -> int:
    """Bytes of memory that the server has (`VmRSS`) or had at most (`VmHWM`)."""
    status = Path(f"/proc/{served.pid}/status").read_text(encoding="ascii")
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def test_websockets_that_have_ended_leave_nothing_in_memory(tmp_path: Path) -> None:
    options = ("--api-key", KEY, "--metrics-host", "127.0.0.1", "--metrics-port", str(free_port()))
    with MeasuredServer(*options, folder=tmp_path) as served:

        def blocks() -> float:
            return metric(scrape(served), "loaded_blocks")

        def open_some() -> ExitStack:
            sockets = ExitStack()
            for _ in range(COLLECT_AFTER):
                client = sockets.enter_context(closing(connect(served.port)))
                client.sendall(handshake())
                assert read_answer(client)[0] == 101
            return sockets

        with open_some():
            while_open = blocks()
        for _ in range(2):  # their memory together is twice what is in use at a time
            open_some().close()
        eventually(lambda: blocks() < while_open)


def test_a_websocket_that_reads_no_answers_costs_little_memory_and_begins_few_runs(tmp_path: Path) -> None:
    answers = 200
    options = ("--app", "tests.apps.wordy:app", "--store", f"sqlite:///{tmp_path / 'jims.db'}")
    with Served(*options) as served, closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(TIMEOUT)
        client.connect(("127.0.0.1", served.port))
        client.sendall(request("GET", WS, *HANDSHAKE))
        assert read_answer(client)[0] == 101
        before = memory(served, "VmRSS")
        for number in range(answers):
            chat = {"type": "chat", "contact_id": f"{number}", "message": str(MIB)}
            client.sendall(frame(json.dumps(chat).encode()))
        with served.client() as other:

            def has_begun(number: int) -> bool:
                return bool(other.get("/api/v1/threads", params={"contact_id": f"{number}"}).json()["threads"])

            eventually(lambda: has_begun(MAX_BEGUN))
            assert not has_begun(2 * MAX_BEGUN)
        assert memory(served, "VmHWM") - before < 128 * MIB
