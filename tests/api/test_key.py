"""Who enters with a key, and that nothing of a stranger's request is read before that is known."""

import hmac
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from jimsapi import Connection, InvalidCredentials, Secret
from jimsapi.builtin.bearer_key import BearerKey
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


def test_a_pipe_in_the_place_of_the_file_refuses_the_start_rather_than_to_hang_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys")
    options = ("--app", "tests.apps.steered:app", "--store", "memory:", "--port", "0", "--metrics-port", "0")
    line = refusal(run_command(*options, cwd=tmp_path, env={"JIMS_API_KEY_FILE": str(tmp_path / "keys")}))
    assert line.startswith(f"jimsapi: JIMS_API_KEY_FILE: cannot read {tmp_path / 'keys'}: it is not a regular file")


def until(client: httpx.Client, authorization: str, status: int) -> None:
    """Ask until the answer has this status: the server looks at its files about once a second."""
    for _ in range(5000):
        if chat(client, authorization).status_code == status:
            return
    raise AssertionError(f"it never became {status}")


def test_a_key_in_the_file_is_changed_without_a_restart(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key-0\n")
    with Served(env={"JIMS_API_KEY_FILE": str(keys)}) as server, server.client() as client:
        assert chat(client, "Bearer key-0").status_code == 200
        keys.write_text("key-1\n")
        until(client, "Bearer key-1", 200)
        assert chat(client, "Bearer key-0").status_code == 401
        log = server.stderr
    assert "ERROR" not in log
    assert "key-" not in log


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


@pytest.mark.parametrize("options", [(), ("--api-key", "")])
def test_without_a_key_the_api_is_public_and_says_so_loudly(options: tuple[str, ...]) -> None:
    with Served(*options, env={"JIMS_API_KEY": ""}) as server, server.client() as client:
        assert chat(client, None).status_code == 200
        assert chat(client, "").status_code == 200
        assert chat(client, "Bearer whatever").status_code == 200
        assert "NO AUTHENTICATION IS CONFIGURED: the API is public" in server.stderr
