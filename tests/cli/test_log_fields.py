"""The log says who has sent a request, if the operator wants that, and never in a form that others can undo."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.command import refusal, run_command
from tests.serving import Served
from tests.waiting import eventually

CHAT, PHONE = "/api/v1/chat", "+15550142"
HASH = re.compile(r"[0-9a-f]{16}")
KEY = {"JIMS_LOG_HASH_KEY": "a secret of this installation"}
CONTACT = ("--log-contact", "--log-format", "json")
FRAMEWORK = """
from jimsapi.asgi import App, Response

app = App()

@app.get("/")
async def root(request):
    return Response(b"")
"""


def send(served: Served, contact: str, message: str = "hi", **headers: str) -> int:
    """Send a message; returns the status."""
    with served.client(headers=headers) as client:
        return client.post(CHAT, json={"contact_id": contact, "message": message}).status_code


def lines(served: Served, count: int) -> list[Mapping[str, str]]:
    """The fields of the lines of so many requests."""
    eventually(lambda: served.stderr.count("jimsapi.access") == count)
    texts = [line for line in served.stderr.splitlines() if "jimsapi.access" in line]
    if texts[0].startswith("{"):
        return [json.loads(text) for text in texts]
    return [dict(part.split("=", 1) for part in text.split() if "=" in part) for text in texts]


def test_a_line_does_not_say_who_sent_the_request_unless_an_option_asks_for_it() -> None:
    with Served() as served:
        assert send(served, PHONE) == 200
        [fields] = lines(served, 1)
        assert not fields.keys() & {"client", "caller", "contact"}


@pytest.mark.parametrize(("trusted", "logged"), [("127.0.0.1", "203.0.113.9"), ("192.0.2.1", "127.0.0.1")])
def test_a_line_has_the_address_of_the_client_that_a_trusted_proxy_names(trusted: str, logged: str) -> None:
    with Served("--log-client", "--forwarded-allow-ips", trusted, "--api-key", "the-key-of-this-test") as served:
        forwarded = {"x-forwarded-for": "203.0.113.9"}
        assert send(served, PHONE, authorization="Bearer the-key-of-this-test", **forwarded) == 200
        assert send(served, PHONE, **forwarded) == 401
        with served.client() as client:
            client.get("/nowhere", headers=forwarded)
        assert [fields["client"] for fields in lines(served, 3)] == [logged] * 3


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_what_a_client_writes_cannot_look_like_another_field(as_json: bool) -> None:
    options = ("--log-format", "json") if as_json else ()
    with Served("--log-client", "--forwarded-allow-ips", "*", *options) as served:
        with served.client() as client:
            client.get("/openapi.json", headers={"x-forwarded-for": "1.2.3.4 caller=key:admin contact=x"})
        [fields] = lines(served, 1)
        assert fields["client"] == "1.2.3.4%20caller%3Dkey:admin%20contact%3Dx"
        assert not fields.keys() & {"caller", "contact"}


@pytest.mark.parametrize("path", ["runs", "contacts", "usage"])
def test_a_request_about_a_contact_has_its_hash_whatever_it_asks(path: str) -> None:
    with Served(*CONTACT, "--api-key", "the-key-of-this-test", env=KEY) as served:
        authorized = {"authorization": "Bearer the-key-of-this-test"}
        assert send(served, PHONE, **authorized) == 200
        with served.client() as client:
            listed = client.get(f"/api/v1/{path}", params={"contact_id": PHONE}, headers=authorized)
            assert listed.status_code == 200
        sent, asked = (fields["contact"] for fields in lines(served, 2))
        assert sent == asked


def test_a_line_has_the_name_of_the_key_or_its_hash(tmp_path: Path) -> None:
    keys = ("--keys-file", str(tmp_path / "keys.json"))
    key = run_command("keys", "new", "website", *keys, cwd=tmp_path).stdout.split()[0]
    callers = []
    for how in ("plain", "hashed"):
        with Served("--log-caller", how, *keys, env=KEY) as served:
            assert send(served, PHONE, authorization=f"Bearer {key}") == 200
            [fields] = lines(served, 1)
            callers.append(fields["caller"])
            assert not fields.keys() & {"client", "contact"}
            assert PHONE not in served.stderr
    assert callers[0] == "key:website"
    assert HASH.fullmatch(callers[1])


def test_all_requests_of_a_contact_have_one_hash_that_depends_on_the_secret() -> None:
    seen = []
    for secret in (KEY, KEY, {"JIMS_LOG_HASH_KEY": "a secret of another one"}):
        with Served(*CONTACT, "--rate-limit", "2/day", env=secret) as served:
            assert [send(served, contact) for contact in (PHONE, PHONE, PHONE, "+15550143")] == [200, 200, 429, 200]
            with served.client() as client:
                client.get("/api/v1/threads", params={"contact_id": PHONE}).raise_for_status()
            with connect(f"ws://127.0.0.1:{served.port}{CHAT}/ws") as ws:
                ws.send(json.dumps({"type": "chat", "contact_id": PHONE, "message": "hi"}))
                ws.recv()
            first, second, refused, other, listed, socket = (fields["contact"] for fields in lines(served, 6))
            assert first == second == refused == listed == socket != other
            assert HASH.fullmatch(first)
            assert HASH.fullmatch(other)
            assert PHONE not in served.stderr
            seen.append(first)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    ("options", "env", "text"),
    [
        (["--log-contact"], {}, "--log-contact needs --log-hash-key"),
        (["--log-caller", "hashed"], {}, "--log-caller hashed needs --log-hash-key"),
        (["--log-contact"], {"JIMS_LOG_HASH_KEY": "too short"}, "--log-hash-key has fewer than 16 characters"),
    ],
)
def test_no_hash_is_logged_that_others_could_compute(
    tmp_path: Path, options: list[str], env: Mapping[str, str], text: str
) -> None:
    refused = run_command("check", *options, cwd=tmp_path, env=env)
    assert text in refusal(refused)
    assert "openssl rand" in refusal(refused)


def test_an_app_of_the_framework_logs_the_client_and_has_no_contacts(tmp_path: Path) -> None:
    (tmp_path / "svc.py").write_text(FRAMEWORK)
    app = ("--app", "svc:app", "--port", "0")
    refused = run_command(*app, "--log-contact", cwd=tmp_path, env=KEY)
    assert "--log-contact (JIMS_LOG_CONTACT) has no effect" in refusal(refused)
    command = Served("--app", "svc:app", "--log-client", folder=tmp_path)
    for option in ("--store", "--metrics-port"):  # options of the chat API
        place = command.command.index(option)
        del command.command[place : place + 2]
    with command as served, served.client() as client:
        client.get("/").raise_for_status()
        assert [fields["client"] for fields in lines(served, 1)] == ["127.0.0.1"]
