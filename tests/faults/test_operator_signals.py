"""Signals show what a real server works on, and change how much it logs. They stop nothing."""

import fcntl
import os
import re
import signal
import socket
import ssl
import subprocess
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from jimsapi.runs.state import MAX_RUNS
from tests.command import refusal, run_command
from tests.raw import TIMEOUT, read_answer, request
from tests.serving import STOP_WITHIN, Served
from tests.waiting import eventually

CHAT = "/api/v1/chat"
END = "SIGUSR1: end of the state"
UUID = "[0-9a-f-]{36}"
SECRET = "jims-secret-4711-of-the-test"


def state(served: Served) -> str:
    """What the server logs on SIGUSR1."""
    before = len(served.stderr)
    os.kill(served.pid, signal.SIGUSR1)
    eventually(lambda: f"{END}\n" in served.stderr[before:])
    return served.stderr[before:]


def has(served: Served, text: str, after: int) -> bool:
    """Whether the log has a text after so many characters."""
    return text in served.stderr[after:]


def chat(served: Served, message: str, contact: str = "ann") -> httpx.Response:
    with served.client(headers={"authorization": f"Bearer {SECRET}"}) as client:
        return client.post(CHAT, json={"contact_id": contact, "message": message})


@contextmanager
def held(served: Served, count: int = 1) -> Iterator[None]:
    """Runs that have begun, and end when the block does."""
    with ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(chat, served, f"hold door-{n}", f"contact-{n}") for n in range(count)]
        for n in range(count):
            assert chat(served, f"reached door-{n}", f"other-{n}").status_code == 200
        yield
        for n in range(count):
            chat(served, f"open door-{n}", f"other-{n}")
        assert [answer.result().status_code for answer in answers] == [200] * count


@contextmanager
def blocked(served: Served) -> Iterator[None]:
    """A run that blocks the event loop, and ends soon after the block does."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(chat, served, "sleep 4")
        eventually(lambda: "the event loop is blocked" in served.stderr)
        yield
        assert answer.result().status_code == 200


def test_the_state_shows_each_run_its_thread_and_where_it_waits_and_nothing_that_callers_send() -> None:
    with Served("--api-key", SECRET, "--contact-runs", "3") as served, held(served):
        lines = state(served)
        assert re.search(
            rf"SIGUSR1: run {UUID}, thread {UUID}, running, open for \d+\.\d s, waited \d+\.\d s, pipeline steered: "
            r".* > steered \(\S+/tests/apps/steered\.py:\d+\)",
            lines,
        )
        assert "SIGUSR1: --max-runs: 1 of 1000\n" in lines
        assert "SIGUSR1: limit contact-runs: counts 1 callers or contacts now\n" in lines
        assert re.search(r"SIGUSR1: descriptors: \d+ of \d+ are open\n", lines)
        assert not re.search(f"door|contact-0|{SECRET}", lines)


def test_the_state_shows_a_run_that_waits_for_its_turn_and_the_streams_that_are_open() -> None:
    with Served() as served, held(served), ThreadPoolExecutor(1) as pool, served.client() as client:
        body = {"contact_id": "contact-0", "message": "see"}
        with client.stream("POST", f"{CHAT}/stream", json=body) as stream:
            lines = state(served)
            assert re.search(
                rf"SIGUSR1: run {UUID}, thread {UUID}, queued, open for \d+\.\d s: RunFlow\.answer ", lines
            )
            assert "SIGUSR1: --thread-queue: at most 1 of 256 wait in one thread\n" in lines
            assert "SIGUSR1: 1 open streams of /api/v1/chat/stream\n" in lines
            read = pool.submit(stream.read)
            chat(served, "open door-0", "bea")
            assert b"event: result" in read.result()


def test_the_state_of_many_runs_has_a_line_for_the_oldest_and_counts_the_others() -> None:
    with Served("--thread-queue", "1000") as served, held(served, MAX_RUNS + 5):
        lines = state(served)
        assert len(re.findall(rf"SIGUSR1: run {UUID}", lines)) == MAX_RUNS
        assert "SIGUSR1: and 5 more runs, which began later\n" in lines
        assert re.search(rf"SIGUSR1: {MAX_RUNS + 5} tasks, each: invoke .* > steered ", lines)


def test_the_state_is_logged_while_a_pipeline_blocks_the_event_loop_and_says_so() -> None:
    with Served("--app", "tests.apps.blocking:app") as served, blocked(served):
        lines = state(served)
        assert "SIGUSR1: the event loop is blocked: it has not answered for 1 s" in lines
        assert re.search(rf"SIGUSR1: run {UUID}, thread {UUID}, running, .*, pipeline answer: ", lines)
        assert re.search(r"blocking\.py\", line \d+ in rest", lines)  # of the stacks of all threads
        assert "works again" not in lines


def test_the_state_shows_where_a_plain_pipeline_is_in_its_thread(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "import threading\n\nfrom jimsapi import JimsApp\n\nbegun, goes_on = threading.Event(), threading.Event()\n\n"
        "def answer(ctx):\n"
        "    match ctx.get_last_user_message():\n"
        "        case 'wait':\n            begun.set()\n            goes_on.wait()\n"
        "        case 'begun':\n            begun.wait()\n"
        "        case 'go on':\n            goes_on.set()\n"
        "    ctx.send_message('done')\n\n"
        "app = JimsApp(answer)\n"
    )
    with Served("--app", "plain", folder=tmp_path) as served, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(chat, served, "wait")
        chat(served, "begun", "bea")
        assert re.search(rf"SIGUSR1: run {UUID}, .*: in a thread, .* > answer \(\S+/plain\.py:11\) > ", state(served))
        chat(served, "go on", "bea")
        assert waiting.result().status_code == 200


def test_sigusr2_adds_details_to_the_log_and_removes_them_again() -> None:
    def wrong_key(served: Served) -> str:
        before = len(served.stderr)
        with served.client(headers={"authorization": "Bearer wrong"}) as client:
            assert client.get("/api/v1/threads?contact_id=ann").status_code == 401
        eventually(lambda: "status=401" in served.stderr[before:])
        return served.stderr[before:]

    with Served("--api-key", SECRET) as served:
        assert " DEBUG " not in wrong_key(served)
        os.kill(served.pid, signal.SIGUSR2)
        eventually(lambda: "the log has details from now on" in served.stderr)
        assert " DEBUG jimsapi" in wrong_key(served)
        os.kill(served.pid, signal.SIGUSR2)
        eventually(lambda: "the log has no details any more" in served.stderr)
        assert " DEBUG " not in wrong_key(served)


def test_the_commands_show_the_state_and_set_the_level_of_a_server(tmp_path: Path) -> None:
    with Served() as served:
        pid = str(served.pid)
        assert "SIGUSR1" in run_command("dump", "--pid", pid, cwd=tmp_path).stdout
        eventually(lambda: END in served.stderr)
        for level, text in (
            ("debug", "details from now on"),
            ("debug", "details from now on"),
            ("configured", "no de"),
        ):
            before = len(served.stderr)
            assert run_command("log-level", level, "--pid", pid, cwd=tmp_path).returncode == 0
            eventually(partial(has, served, text, before))


def test_the_commands_signal_no_process_that_the_signal_would_end(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        for command in (("dump",), ("log-level", "debug")):
            refused = run_command(*command, "--pid", str(other.pid), cwd=tmp_path)
            assert "it is not a server of jimsapi" in refusal(refused)
        assert other.poll() is None
        other.kill()
    assert f"there is no process {other.pid}" in refusal(run_command("dump", "--pid", str(other.pid), cwd=tmp_path))


class Certificates:
    """The files of a server's certificate, and clients that trust who signs it."""

    def __init__(self, folder: Path) -> None:
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"
        self._authority = trustme.CA()
        self.renew()
        self.options = ("--ssl-certfile", str(self.chain), "--ssl-keyfile", str(self.key))

    def renew(self) -> None:
        """Write a new certificate and its key."""
        issued = self._authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(self.chain)
        issued.private_key_pem.write_to_path(self.key)

    def encrypt_key(self) -> None:
        """Put a passphrase on the key."""
        key = load_pem_private_key(self.key.read_bytes(), None)
        encryption = BestAvailableEncryption(b"a passphrase")
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))

    def connect(self, port: int) -> ssl.SSLSocket:
        """A new connection."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        plain = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        return context.wrap_socket(plain, server_hostname="localhost")

    def seen(self, port: int) -> object:
        """The serial number of the certificate that the server shows to a new connection."""
        with self.connect(port) as connection:
            return serial(connection)


def serial(connection: ssl.SSLSocket) -> object:
    """The serial number of the server's certificate."""
    return (connection.getpeercert() or {})["serialNumber"]


def hang_up(served: Served, text: str) -> None:
    """Send SIGHUP, and wait for a line."""
    before = len(served.stderr)
    os.kill(served.pid, signal.SIGHUP)
    eventually(lambda: text in served.stderr[before:])


def test_after_a_hangup_new_connections_get_the_new_certificate_and_open_ones_go_on(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with Served(*certificates.options) as served, certificates.connect(served.port) as kept:
        kept.sendall(request("GET", "/healthz"))
        assert read_answer(kept)[0] == 200
        certificates.renew()
        assert certificates.seen(served.port) == serial(kept)
        hang_up(served, f"SIGHUP: the certificate was read again from {certificates.chain}")
        assert certificates.seen(served.port) != serial(kept)
        kept.sendall(request("GET", "/healthz"))
        assert read_answer(kept)[0] == 200


def test_a_faulty_certificate_is_reported_and_the_previous_one_stays(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with Served(*certificates.options) as served:
        first, chain = certificates.seen(served.port), certificates.chain.read_bytes()
        certificates.renew()
        certificates.chain.write_bytes(chain)  # the key is another one's
        hang_up(served, f"the key in {certificates.key} does not belong to the first certificate in")
        certificates.key.unlink()
        hang_up(served, f"cannot be used: there is no file {certificates.key}")
        assert "correct the files, and send SIGHUP again" in served.stderr
        assert certificates.seen(served.port) == first
        certificates.renew()
        hang_up(served, "the certificate was read again")
        assert certificates.seen(served.port) != first


def test_a_hangup_of_a_server_without_a_certificate_changes_nothing() -> None:
    with Served() as served, held(served):
        hang_up(served, "INFO jimsapi SIGHUP: there is nothing to read again, since the server has no certificate")
        with served.client() as client:
            assert client.get("/readyz").status_code == 200


class InTerminal(Served):
    """A server whose standard input is a terminal of its own."""

    def launch(self) -> None:
        """Start the process, and do not wait for it."""
        self.terminal, far = os.openpty()
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.env,
                stdin=far,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        os.close(far)


def test_a_server_whose_terminal_is_closed_stops_as_after_sigterm() -> None:
    with InTerminal() as served:
        hang_up(served, "there is nothing to read again")  # a signal of a person, while the terminal is open
        os.close(served.terminal)
        assert served.process is not None
        assert served.process.wait(STOP_WITHIN) == 0
        assert "the terminal is closed: the server stops" in served.stderr
        assert "jimsapi stopped" in served.stderr


def test_a_hangup_does_not_ask_for_a_passphrase_at_the_terminal(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with InTerminal(*certificates.options) as served:
        certificates.encrypt_key()
        hang_up(served, "ERROR jimsapi SIGHUP: the certificate, its key or --ssl-ca-certs cannot be used: ")
        os.close(served.terminal)
