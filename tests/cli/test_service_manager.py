"""The server under a service manager: its state, a socket that the manager opens, and time for load balancers."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.command import refusal
from tests.raw import connect, request
from tests.serving import ROOT, Served
from tests.waiting import eventually

CHAT = {"contact_id": "ann", "message": "hi"}
SCRIPTED = ("--app", "tests.apps.scripted:app")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a manager that waits for states."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(30)
        yield receiver


def test_the_manager_learns_that_the_server_is_ready_and_that_it_stops(manager: socket.socket) -> None:
    with Served(*SCRIPTED, env={"NOTIFY_SOCKET": manager.getsockname()}) as server:
        assert manager.recv(100) == b"READY=1"
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"


def test_a_manager_in_the_abstract_namespace_gets_the_states_too() -> None:
    name = f"jimsapi-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(30)
        with Served(*SCRIPTED, env={"NOTIFY_SOCKET": f"@{name}"}):
            assert receiver.recv(100) == b"READY=1"


def test_a_manager_that_is_gone_does_not_stop_the_server(tmp_path: Path) -> None:
    with Served(*SCRIPTED, env={"NOTIFY_SOCKET": str(tmp_path / "nobody")}) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        eventually(lambda: "did not get READY=1" in server.stderr)


@contextmanager
def activated(passed: socket.socket, count: str) -> Iterator[subprocess.Popen[str]]:
    """The command, started by a manager that passes it a socket."""
    script = f'exec 3<&{passed.fileno()}; export LISTEN_PID=$$ LISTEN_FDS={count}; exec "$@"'
    command = [sys.executable, "-m", "jimsapi", *SCRIPTED, "--store", "memory:", "--metrics-port", "0", "--port", "1"]
    started = subprocess.Popen(
        ["bash", "-c", script, "bash", *command],
        cwd=ROOT,
        pass_fds=(passed.fileno(),),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def test_the_server_listens_on_the_socket_that_the_manager_passes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed, activated(passed, "1") as started:
        # The socket listens already, so this waits in the kernel until the server has started.
        url = f"http://127.0.0.1:{passed.getsockname()[1]}/api/v1/chat"
        assert httpx.post(url, json=CHAT, timeout=30).status_code == 200
        started.terminate()
        assert started.wait(30) == 0
        # The manager starts the server again for a connection that comes after the end.
        with socket.create_connection(passed.getsockname(), timeout=30):
            passed.settimeout(30)
            passed.accept()[0].close()


def test_a_socket_that_does_not_listen_stops_the_start() -> None:
    with socket.socket() as passed:
        passed.bind(("127.0.0.1", 0))
        with activated(passed, "1") as started:
            output, errors = started.communicate(timeout=30)
            ran = subprocess.CompletedProcess(started.args, started.returncode, output, errors)
            assert "does not listen" in refusal(ran)


def test_a_second_signal_also_shortens_the_time_that_a_hung_server_has(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("import time\n\nasync def app(ctx):\n    time.sleep(600)\n")
    options = ("--app", "bot", "--drain-delay", "600", "--drain-time", "2")
    with Served(*options, folder=tmp_path) as server, connect(server.port) as connection:
        body = b'{"contact_id":"ann","message":"hi"}'
        fields = ("content-type: application/json", f"content-length: {len(body)}")
        connection.sendall(request("POST", "/api/v1/chat", *fields, body=body))
        eventually(lambda: "the event loop is blocked" in server.stderr)
        process = server.process
        assert process is not None

        def ends() -> bool:  # two signals that follow at once may arrive as one
            process.send_signal(signal.SIGTERM)
            return process.poll() is not None

        eventually(ends)
        assert process.returncode == 0
        assert "the shutdown took longer than --drain-time" in server.stderr


@pytest.mark.parametrize(
    ("count", "fault"), [("2", "passes 2 sockets"), ("1", "it is neither a TCP socket nor a Unix")]
)
def test_a_manager_that_passes_something_else_stops_the_start(count: str, fault: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as passed:
        passed.bind(str(tmp_path / "socket"))
        with activated(passed, count) as started:
            output, errors = started.communicate(timeout=30)
            ran = subprocess.CompletedProcess(started.args, started.returncode, output, errors)
            assert fault in refusal(ran)


def test_the_server_listens_on_a_unix_socket_that_the_manager_passes_and_leaves_it_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "socket"
    monkeypatch.setenv("JIMS_UDS", str(path))
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen()
        with activated(passed, "1") as started, httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.post("http://localhost/api/v1/chat", json=CHAT, timeout=30).status_code == 200
            started.terminate()
            assert started.wait(30) == 0
        assert path.is_socket()
        passed.setblocking(False)
        with pytest.raises(BlockingIOError):  # a connection would have the manager start the server again
            passed.accept()


def test_load_balancers_have_time_to_see_that_a_server_leaves() -> None:
    with Served(*SCRIPTED, "--drain-delay", "600") as server:
        os.kill(server.pid, signal.SIGTERM)
        eventually(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        assert httpx.get(f"{server.url}/readyz").json() == {"status": "draining"}
        assert httpx.post(f"{server.url}/api/v1/chat", json=CHAT).status_code == 200
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert server.stop() == 0  # a second signal ends the delay


def test_the_drain_begins_by_itself_after_the_delay() -> None:
    with Served(*SCRIPTED, "--drain-delay", "0.2") as server:
        os.kill(server.pid, signal.SIGTERM)
        assert server.process is not None
        assert server.process.wait(30) == 0
        assert "the shutdown begins in 0.2 s (--drain-delay)" in server.stderr
