"""The plugin in the real command: installed, found, configured by flags, in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from fake_authentik import FakeAuthentik

from tests.serving import ROOT, STEERED, Served

BODY = {"contact_id": "ann", "message": "hi"}


@pytest.fixture
def command(authentik: FakeAuthentik) -> Iterator[Served]:
    with Served(*authentik.flags, "--api-key", "the-key", "--verbose") as served:
        yield served


def status(client: httpx.Client, authorization: str | None) -> int:
    headers = {} if authorization is None else {"authorization": authorization}
    return client.post("/api/v1/chat", json=BODY, headers=headers).status_code


def test_the_command_lets_in_by_authentik_and_by_key(authentik: FakeAuthentik, command: Served) -> None:
    with command.client() as client:
        assert status(client, "Bearer the-key") == 200
        assert authentik.calls == 0
        for _ in range(2):
            assert status(client, "Bearer good") == 200
            assert status(client, "Bearer other") == 403
            assert status(client, "Bearer bad-token") == 401
        assert authentik.calls_by_token == {"good": 1, "other": 1, "bad-token": 1}
        assert [status(client, given) for given in (None, "Bearer", "Basic eDp5")] == [401, 401, 401]
        authentik.starting_up = True
        assert status(client, "Bearer unknown-token") == 503
        assert status(client, "Bearer good") == 200
    assert command.stop() == 0
    shown = command.stderr
    assert "auth: key, authentik" in shown
    assert "auth provider authentik is unavailable: Authentik answered 502 on" in shown
    for secret in ("the-key", "bad-token", "unknown-token"):
        assert secret not in shown


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jimsapi", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


def test_check_names_the_provider_and_asks_nobody(authentik: FakeAuthentik) -> None:
    done = run("check", "--app", STEERED, "--store", "memory:", *authentik.flags)
    assert "who may enter: callers that one of these admits, tried in this order: authentik" in done.stdout
    assert (done.returncode, authentik.seen) == (0, [])


def test_check_with_connect_asks_authentik_whether_it_is_ready(authentik: FakeAuthentik) -> None:
    check = ("check", "--connect", "--app", STEERED, "--store", "memory:", "--port", "0", "--metrics-port", "0")
    done = run(*check, *authentik.flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert "it answers: auth provider authentik" in done.stdout
    assert [seen.path for seen in authentik.seen] == ["/-/health/ready/"]
    authentik.starting_up = True
    done = run(*check, *authentik.flags)
    assert (done.returncode, done.stderr) == (
        1, "jimsapi: auth provider authentik: Authentik answers 502 to /-/health/ready/\n",
    )  # fmt: skip
    done = run(*check, "--authentik-url", "http://127.0.0.1:1", "--authentik-app-slug", "x")
    assert done.returncode == 1
    assert done.stderr.startswith("jimsapi: auth provider authentik: cannot connect to Authentik: ")


def test_check_says_that_it_is_configured_by_half() -> None:
    done = run("check", "--app", STEERED, "--store", "memory:", "--authentik-url", "https://auth.example.org")
    assert "HALF CONFIGURED AND ADMITS NOBODY: missing --authentik-app-slug" in done.stderr
    assert done.returncode == 0
