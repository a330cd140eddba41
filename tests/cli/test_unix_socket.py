"""The server on a Unix socket: which proxies it trusts, and what is at the path before and after."""

import fcntl
import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import unix_connect

from jimsapi.server import port
from jimsapi.server.port import close_unix_socket, open_unix_socket
from tests.command import refusal, run_command
from tests.on_socket import OnSocket
from tests.serving import Served
from tests.waiting import eventually

CHAT = "/api/v1/chat"
HELLO = {"contact_id": "ann", "message": "hi"}
FORWARDED = {"x-forwarded-for": "203.0.113.9"}
QUIET = ("--store", "memory:", "--metrics-port", "0", "--app", "bot")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "bot.py").write_text("async def app(ctx):\n    ctx.send_message('hello')\n")
    return tmp_path / "jimsapi.sock"


@contextmanager
def listener(path: Path) -> Iterator[None]:
    """Another program that listens at a path."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        yield


def test_a_server_answers_on_a_unix_socket_and_removes_it_at_its_end(path: Path) -> None:
    with OnSocket(path) as served:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with served.unix_client() as client:
            assert client.post(CHAT, json=HELLO).status_code == 200
            with client.stream("POST", f"{CHAT}/stream", json=HELLO) as stream:
                assert b"event: result" in stream.read()
        with unix_connect(str(path), f"ws://localhost{CHAT}/ws") as ws:
            ws.send('{"type": "chat", "contact_id": "ann", "message": "hi"}')
            assert "run_id" in str(ws.recv())
        assert served.stop() == 0
        assert not path.exists()


@pytest.mark.parametrize(("trusted", "logged"), [("unix", "203.0.113.9"), ("127.0.0.1", "unix"), ("*", "203.0.113.9")])
def test_the_clients_of_a_unix_socket_are_trusted_as_proxies_if_the_option_says_so(
    path: Path, trusted: str, logged: str
) -> None:
    with OnSocket(path, "--forwarded-allow-ips", trusted, "--log-client") as served:
        with served.unix_client() as client:
            client.get("/openapi.json", headers=FORWARDED).raise_for_status()
        with unix_connect(str(path), f"ws://localhost{CHAT}/ws", additional_headers=FORWARDED):
            pass
        eventually(lambda: served.stderr.count(f" client={logged}") == 2)


def test_a_client_over_tcp_is_not_trusted_as_one_of_a_unix_socket() -> None:
    with Served("--forwarded-allow-ips", "unix", "--log-client") as served, served.client() as client:
        client.get("/openapi.json", headers=FORWARDED).raise_for_status()
        eventually(lambda: " client=127.0.0.1" in served.stderr)


def test_a_killed_server_leaves_a_socket_that_the_next_one_replaces(path: Path) -> None:
    with OnSocket(path, "--uds-mode", "600") as served:
        served.stop(signal.SIGKILL)
        assert path.is_socket()
        served.start()
        with served.unix_client() as client:
            assert client.get("/readyz").status_code == 200
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("command", [(), ("check", "--connect")], ids=["start", "check --connect"])
def test_a_path_at_which_another_program_listens_is_refused(path: Path, command: tuple[str, ...]) -> None:
    with listener(path):
        refused = run_command(*command, *QUIET, "--uds", str(path), cwd=path.parent)
        assert refusal(refused).endswith(
            f"cannot listen on --uds {path}: another process listens there; stop that program, or use another path"
        )
        checked = run_command("check", *QUIET, "--uds", str(path), cwd=path.parent)
        assert checked.returncode == 0  # the server itself may run
        assert f"at unix:{path}" in checked.stdout
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_nothing_but_a_socket_is_removed(path: Path) -> None:
    path.write_text("precious")
    for command in ((), ("check",)):
        refused = run_command(*command, *QUIET, "--uds", str(path), cwd=path.parent)
        assert "it is not a socket; use another path" in refusal(refused)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--uds", "nowhere/a.sock"), "create the folder nowhere, or use another path"),
        (("--uds", f"{'a' * 120}.sock"), "the path of a Unix socket has at most 107 bytes"),
        (("--uds", "a.sock", "--uds-mode", "rw"), "--uds-mode: 'rw' are no permissions; give three octal digits"),
    ],
)
def test_a_socket_that_cannot_be_opened_is_refused_by_the_start_and_the_check(
    path: Path, options: tuple[str, ...], text: str
) -> None:
    for command in ((), ("check",)):
        assert text in refusal(run_command(*command, *QUIET, *options, cwd=path.parent))


def test_a_server_that_ends_does_not_remove_the_socket_of_the_next_one(path: Path) -> None:
    first = open_unix_socket(path, 0o600)
    first.close()
    with open_unix_socket(path, 0o600):
        close_unix_socket(path)
        assert path.is_socket()
    close_unix_socket(path)
    assert not path.exists()


def test_a_folder_that_another_process_keeps_locked_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "LOCKED_WITHIN", 0.1)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=f"another process keeps {path.parent} locked"):
            open_unix_socket(path, 0o600)
    finally:
        os.close(descriptor)
    open_unix_socket(path, 0o600).close()


def test_the_socket_of_a_busy_server_whose_backlog_is_full_is_not_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(OSError, match="another process listens there"):
            open_unix_socket(path, 0o600)
        for client in clients:
            client.close()
    os.unlink(path)
