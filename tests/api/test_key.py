"""Who enters with a key, and that nothing of a stranger's request is read before that is known."""

import hmac
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from jimsapi import Connection, InvalidCredentials, Secret
from jimsapi.builtin.bearer_key import BearerKey
from jimsapi.builtin.keys_file import KeysFile
from tests.command import refusal, run_command
from tests.raw import ask, connect, ended, read_answer, request
from tests.serving import Served

CHAT = "/api/v1/chat"
GOOD = {"contact_id": "ann", "message": "hi"}
KEY, OTHER, UMLAUT = "first-key", "second-key", "schlüssel-✓"
UNAUTHORIZED = (401, '{"detail":"Unauthorized"}')
CHALLENGE = 'Bearer realm="jimsapi"'
INVALID = CHALLENGE + ', error="invalid_token"'


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--api-key", KEY, "--api-key", OTHER, "--api-key", UMLAUT, "--api-key", "") as server:
        yield server


def chat(client: httpx.Client, authorization: str | bytes | None) -> httpx.Response:
    headers = {} if authorization is None else {"authorization": authorization}
    return client.post(CHAT, json=GOOD, headers=headers)  # type: ignore[arg-type] # bytes are fine with httpx


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {KEY}",
        f"Bearer {OTHER}",
        f"bearer {KEY}",
        f"BEARER {KEY}",
        f"Bearer   {KEY}",
        f"Bearer {UMLAUT}".encode(),
    ],
)
def test_every_key_is_admitted_however_the_scheme_is_spelled(client: httpx.Client, authorization: str | bytes) -> None:
    assert chat(client, authorization).status_code == 200


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, CHALLENGE),
        ("", CHALLENGE),
        (KEY, CHALLENGE),
        (f"Basic {KEY}", CHALLENGE),
        (f"Token {KEY}", CHALLENGE),
        (f"Bearer{KEY}", CHALLENGE),
        (f"{KEY} Bearer", CHALLENGE),
        ("Bearer", INVALID),
        ("Bearer wrong", INVALID),
        (f"Bearer {KEY} {KEY}", INVALID),
        (f"Bearer {KEY}x", INVALID),
        (f"Bearer {KEY[:-1]}", INVALID),
        (f"Bearer {KEY.upper()}", INVALID),
        (f"Bearer {KEY},{OTHER}", INVALID),
        ("Bearer schlüssel".encode(), INVALID),
        ("Bearer schlüssel-\u00fc".encode("latin-1"), INVALID),
        (b"Bearer \xff\xfe", INVALID),
    ],
)
def test_nobody_else_is_admitted(client: httpx.Client, authorization: str | bytes | None, challenge: str) -> None:
    answer = chat(client, authorization)
    assert (answer.status_code, answer.text) == UNAUTHORIZED
    assert answer.headers["www-authenticate"] == challenge
    assert answer.headers["x-request-id"]
    assert "x-run-id" not in answer.headers


@pytest.mark.parametrize("line", ["authorization: Bearer ", "authorization:  bearer   "])
def test_an_empty_token_is_a_wrong_one(served: Served, line: str) -> None:
    status, headers, _ = ask(served.port, request("POST", CHAT, line, "content-length: 0"))
    assert (status, headers["www-authenticate"]) == (401, INVALID)


@pytest.mark.parametrize(
    "lines",
    [
        ("authorization: Bearer first-key", "authorization: Bearer first-key"),
        ("authorization: Bearer wrong", "Authorization: Bearer first-key"),
        ("authorization: ", "authorization: Bearer first-key"),
    ],
)
def test_two_authorization_headers_are_one_too_many(served: Served, lines: tuple[str, str]) -> None:
    status, headers, body = ask(served.port, request("POST", CHAT, *lines, "content-length: 0"))
    assert (status, body) == (400, b'{"detail":"Send one Authorization header"}')
    assert headers["www-authenticate"] == CHALLENGE + ', error="invalid_request"'


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b'{"contact_id":1}'])
def test_a_stranger_s_faulty_body_is_401_not_422(client: httpx.Client, body: bytes) -> None:
    answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.text) == UNAUTHORIZED


def test_a_stranger_s_body_that_is_no_json_or_too_large_is_401(client: httpx.Client) -> None:
    assert client.post(CHAT, content=b"x", headers={"content-type": "text/plain"}).status_code == 401
    assert client.post(CHAT, content=b"x" * 2_000_000).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CHAT),
        ("GET", "/api/v1/threads?contact_id=ann"),
        ("GET", "/api/v1/threads/0192b5f2-2c03-7b91-9c6c-9a1234567890"),
        ("GET", "/api/v1/threads/0192b5f2-2c03-7b91-9c6c-9a1234567890/events"),
        ("HEAD", "/api/v1/threads?contact_id=ann"),
        ("DELETE", "/api/v1/threads/0192b5f2-2c03-7b91-9c6c-9a1234567890"),
        ("DELETE", "/api/v1/contacts?contact_id=ann"),
        ("GET", "/api/v1/threads?contact_id=ann&limit=nonsense"),
    ],
)
def test_every_route_of_threads_asks_for_the_key(client: httpx.Client, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("GET", "/unknown", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/api/v1/threads", 405),
    ],
)
def test_probes_documentation_and_what_is_not_there_ask_for_no_key(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    assert client.request(method, path).status_code == status


def test_a_stranger_who_waits_for_100_continue_gets_401_and_never_100(served: Served) -> None:
    sent = request("POST", CHAT, "expect: 100-continue", "content-type: application/json", "content-length: 100")
    with closing(connect(served.port)) as connection:
        connection.sendall(sent)
        status, headers, _ = read_answer(connection)
        assert (status, headers["connection"]) == (401, "close")
        assert ended(connection)


def test_a_holder_who_waits_for_100_continue_gets_it(served: Served) -> None:
    body = b'{"contact_id":"ann","message":"hi"}'
    key = f"authorization: Bearer {KEY}"
    head = request(
        "POST", CHAT, key, "expect: 100-continue", "content-type: application/json", f"content-length: {len(body)}"
    )
    with closing(connect(served.port)) as connection:
        connection.sendall(head)
        assert read_answer(connection)[0] == 100
        connection.sendall(body)
        assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("framing", ["content-length: 1000000", "transfer-encoding: chunked"])
def test_a_stranger_who_never_sends_the_body_is_answered_and_let_go(served: Served, framing: str) -> None:
    with closing(connect(served.port)) as connection:
        connection.sendall(request("POST", CHAT, "content-type: application/json", framing))
        status, headers, body = read_answer(connection)
        assert (status, headers["connection"], body) == (401, "close", b'{"detail":"Unauthorized"}')
        assert ended(connection)


def test_a_stranger_s_64_megabytes_are_not_read(served: Served) -> None:
    length = 64 * 1024 * 1024
    chunk = b"x" * 65536
    taken = 0
    with closing(connect(served.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.sendall(request("POST", CHAT, "content-type: application/json", f"content-length: {length}"))
        try:
            while taken < length:
                taken += connection.send(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert taken < length // 4


def test_a_stranger_s_short_body_leaves_the_connection_usable(served: Served) -> None:
    body = b'{"contact_id":"ann","message":"hi"}'
    lines = ("content-type: application/json", f"content-length: {len(body)}")
    with closing(connect(served.port)) as connection:
        connection.sendall(request("POST", CHAT, *lines, body=body))
        status, headers, _ = read_answer(connection)
        assert (status, headers.get("connection")) == (401, None)
        connection.sendall(request("POST", CHAT, f"authorization: Bearer {KEY}", *lines, body=body))
        assert read_answer(connection)[0] == 200


def test_no_key_and_no_token_is_ever_written(served: Served, client: httpx.Client) -> None:
    token = "stranger-s-token"
    chat(client, f"Bearer {token}")
    chat(client, f"Bearer {KEY}")
    client.get(f"/api/v1/threads?contact_id=ann&after={token}", headers={"authorization": f"Bearer {KEY}"})
    shown = served.stderr
    for secret in (KEY, OTHER, UMLAUT, token):
        assert secret not in shown
    assert "auth: key" in shown


@pytest.mark.parametrize("options", [(), ("--api-key", "")])
def test_without_a_key_the_api_is_public_and_says_so_loudly(options: tuple[str, ...]) -> None:
    with Served(*options, env={"JIMS_API_KEY": ""}) as server, server.client() as client:
        assert chat(client, None).status_code == 200
        assert chat(client, "").status_code == 200
        assert chat(client, "Bearer whatever").status_code == 200
        assert "NO AUTHENTICATION IS CONFIGURED: the API is public" in server.stderr


def test_keys_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("from-file\n")
    for variables in ({"JIMS_API_KEY": "from-file"}, {"JIMS_API_KEY_FILE": str(tmp_path / "keys")}):
        with Served(env=variables) as server, server.client() as client:
            assert chat(client, "Bearer from-file").status_code == 200
            assert chat(client, "Bearer other").status_code == 401
            assert "NO AUTHENTICATION" not in server.stderr


WEIRD = ("two words", "a,b;c", "k=v==", '"quoted"', "it's", "schlüssel-✓", "鍵")


def test_weird_keys_of_flag_variable_and_file_are_valid_together_and_never_split(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(("\ufeff" + "\r\n".join(f"file {key}" for key in WEIRD)).encode())
    flags = [part for key in WEIRD for part in ("--api-key", f"flag {key}")]
    env = {"JIMS_API_KEY": "variable," + ",".join(WEIRD), "JIMS_API_KEY_FILE": str(tmp_path / "keys")}
    whole = [env["JIMS_API_KEY"], *(f"{source} {key}" for source in ("flag", "file") for key in WEIRD)]
    with Served(*flags, env=env) as server, server.client() as client:
        for key in whole:
            assert chat(client, f"Bearer {key}".encode()).status_code == 200, key
        for part in ("variable", "flag", "file", "two", *WEIRD):
            assert chat(client, f"Bearer {part}".encode()).status_code == 401, part
        shown = server.stderr
    assert not any(key in shown for key in WEIRD)


def test_a_pipe_in_the_place_of_the_file_refuses_the_start_rather_than_to_hang_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys")
    options = ("--app", "tests.apps.steered:app", "--store", "memory:", "--port", "0", "--metrics-port", "0")
    line = refusal(run_command(*options, cwd=tmp_path, env={"JIMS_API_KEY_FILE": str(tmp_path / "keys")}))
    assert line.startswith(f"jimsapi: JIMS_API_KEY_FILE: cannot read {tmp_path / 'keys'}: it is not a regular file")


@pytest.mark.parametrize("content", [None, "", "\n\r\n"])
@pytest.mark.parametrize("flags", [(), ("--api-key", KEY)])
def test_a_file_that_is_missing_or_empty_refuses_the_start_whatever_else_is_given(
    tmp_path: Path, content: str | None, flags: tuple[str, ...]
) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content)
    options = ("--app", "tests.apps.steered:app", "--store", "memory:", "--port", "0", "--metrics-port", "0")
    ran = run_command(*options, *flags, cwd=tmp_path, env={"JIMS_API_KEY_FILE": str(tmp_path / "keys")})
    assert f"JIMS_API_KEY_FILE: {'cannot read ' if content is None else ''}{tmp_path / 'keys'}" in refusal(ran)


def test_a_keys_file_that_cannot_be_used_refuses_the_start_in_one_line(tmp_path: Path) -> None:
    env = {"JIMS_KEYS_FILE": str(tmp_path / "keys.json")}
    options = ("--app", "tests.apps.steered:app", "--store", "memory:", "--port", "0", "--metrics-port", "0")
    line = refusal(run_command(*options, cwd=tmp_path, env=env))
    assert line.startswith(f"jimsapi: --keys-file: there is no {tmp_path}/keys.json; `jimsapi keys new NAME")
    (tmp_path / "keys.json").write_text('{"version": 1, "keys": [{"name": "x"}]}')
    line = refusal(run_command("check", *options, cwd=tmp_path, env=env))
    assert line.startswith(f"jimsapi: --keys-file: {tmp_path}/keys.json: it is not a keys file: ")


def until(client: httpx.Client, authorization: str, status: int) -> None:
    """Ask until the answer has this status: the server looks at its files about once a second."""
    for _ in range(5000):
        if chat(client, authorization).status_code == status:
            return
    raise AssertionError(f"it never became {status}")


class Callers:
    """Threads that ask without a pause, each with the key that is right at the moment, and note every status."""

    def __init__(self, server: Served, key: str) -> None:
        self.key = key
        self.statuses: list[int] = []
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with self._server.client() as client:
            while not self._stop.is_set():
                answer = client.get("/api/v1/threads?contact_id=x", headers={"authorization": f"Bearer {self.key}"})
                self.statuses.append(answer.status_code)


def test_under_load_a_key_in_the_file_is_changed_without_a_gap_and_without_a_restart(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key-0\n")
    with Served(env={"JIMS_API_KEY_FILE": str(keys)}) as server, server.client() as client:
        with Callers(server, "key-0") as callers:
            for turn in (1, 2):
                old, new = f"key-{turn - 1}", f"key-{turn}"
                keys.write_text(f"{old}\n{new}\n")  # in place: for a moment the file is empty
                until(client, f"Bearer {new}", 200)
                callers.key = new
                keys.write_text(f"{new}\n")
                until(client, f"Bearer {old}", 401)
        log = server.stderr
    assert set(callers.statuses) == {200}
    assert "ERROR" not in log
    assert "key-" not in log


def test_when_the_file_goes_its_keys_are_refused_and_that_is_told_once(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("from-file\n")
    with Served("--api-key", KEY, env={"JIMS_API_KEY_FILE": str(keys)}) as server, server.client() as client:
        assert chat(client, "Bearer from-file").status_code == 200
        keys.unlink()
        until(client, "Bearer from-file", 401)
        assert chat(client, f"Bearer {KEY}").status_code == 200
        keys.write_text("from-file\n")
        until(client, "Bearer from-file", 200)
        server.stop()
        assert server.stderr.count(f"JIMS_API_KEY_FILE: {keys}: it is missing or empty") == 1


def test_named_keys_do_what_the_keys_file_lets_them_and_a_change_needs_no_restart(tmp_path: Path) -> None:
    file = KeysFile(tmp_path / "keys.json")
    free, _ = file.add("free")
    talker, _ = file.add("talker", scopes=("chat",))
    reader, _ = file.add("reader", scopes=("threads",))
    bound, _ = file.add("bound", contact_id="ann")
    passing, _ = file.add("passing", expires=datetime.now(UTC) + timedelta(days=1))
    threads = "/api/v1/threads?contact_id=ben"

    def statuses(client: httpx.Client, key: str) -> tuple[int, int]:
        headers = {"authorization": f"Bearer {key}"}
        body = {"contact_id": "ben", "message": "hi"}
        answers = client.post(CHAT, json=body, headers=headers), client.get(threads, headers=headers)
        return answers[0].status_code, answers[1].status_code

    with Served("--keys-file", str(tmp_path / "keys.json"), "--verbose") as server, server.client() as client:
        assert statuses(client, free) == (200, 200)
        assert statuses(client, talker) == (200, 403)
        assert statuses(client, reader) == (403, 200)
        assert statuses(client, bound) == (403, 403)
        assert chat(client, f"Bearer {bound}").status_code == 200  # for ann
        assert statuses(client, passing) == (200, 200)
        assert chat(client, None).status_code == 401
        file.revoke("free")
        until(client, f"Bearer {free}", 401)
        late, _ = file.add("late")
        until(client, f"Bearer {late}", 200)
        for name in ("talker", "reader", "bound", "passing", "late"):
            file.revoke(name)
        until(client, f"Bearer {late}", 401)
        for key in (talker, bound, "x"):
            assert chat(client, f"Bearer {key}").status_code == 401
        server.stop()
        log = server.stderr
    assert not any(key in log for key in (free, talker, reader, bound, passing, late))


def test_with_a_keys_file_that_holds_no_key_nobody_enters(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"version": 1, "keys": []}')
    with Served(env={"JIMS_KEYS_FILE": str(tmp_path / "keys.json")}) as server, server.client() as client:
        for authorization in (None, "Bearer", "Bearer x"):
            assert chat(client, authorization).status_code == 401
        assert "HOLDS NO KEY" in server.stderr
        assert "NO AUTHENTICATION" not in server.stderr


@pytest.mark.anyio
async def test_every_key_is_compared_in_constant_time_wherever_the_match_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def watched(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    provider = BearerKey((Secret("short"), Secret("a much longer key"), Secret("third")))

    async def authenticate(token: str) -> None:
        await provider.authenticate(
            Connection({"type": "http", "headers": [(b"authorization", b"Bearer " + token.encode())]})
        )

    await authenticate("short")
    await authenticate("third")
    with pytest.raises(InvalidCredentials):
        await authenticate("x" * 1000)
    # Digests of one length, three a request: neither the place nor the length of a key shows in the time.
    assert compared == [(32, 32)] * 9


def test_private_documentation_needs_a_key_and_no_documentation_is_not_there() -> None:
    paths = ("/openapi.json", "/docs")
    key = {"authorization": f"Bearer {KEY}"}
    for docs, for_strangers, for_holders in (("private", [401, 200], [200, 200]), ("off", [404, 404], [404, 404])):
        with Served("--api-key", KEY, "--docs", docs) as server, httpx.Client(base_url=server.url) as client:
            assert [client.get(path).status_code for path in paths] == for_strangers
            assert [client.get(path, headers=key).status_code for path in paths] == for_holders
            assert ("documentation at" in server.stderr) == (docs == "private")


def test_a_server_that_requires_authentication_does_not_start_public(tmp_path: Path) -> None:
    options = ("--app", "tests.apps.scripted:app", "--store", "memory:", "--port", "0", "--metrics-port", "0")
    for command in ((), ("check",)):
        message = refusal(run_command(*command, *options, "--require-auth", cwd=tmp_path))
        assert message.startswith("jimsapi: --require-auth: no auth provider is configured")
        assert "JIMS_API_KEY_FILE" in message
    with Served("--require-auth", "--api-key", KEY) as server:
        assert ask(server.port, request("GET", "/api/v1/threads?contact_id=ann"))[0] == 401
