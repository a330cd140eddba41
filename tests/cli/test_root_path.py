"""The API below a path of its site, by a proxy that removes the path from requests, and by one that keeps it."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from jimsapi.cli.options import ServerOptions
from tests.command import refusal, run_command
from tests.serving import Served
from tests.waiting import eventually

CHAT = "/api/v1/chat"
HELLO = {"contact_id": "ann", "message": "hi"}
ROOT = ("--root-path", "/chat")


class Shown:
    """A server below `/chat`, as its proxy calls it: with `prefix` in front of the path that is left."""

    def __init__(self, served: Served, prefix: str) -> None:
        self.served, self.prefix = served, prefix

    def path(self, public: str) -> str:
        """What the proxy sends for the path that a browser asks for."""
        assert public.startswith("/chat/")
        return self.prefix + public.removeprefix("/chat")


@pytest.fixture(scope="module", params=["removes", "keeps"])
def shown(request: pytest.FixtureRequest) -> Iterator[Shown]:
    keeps = request.param == "keeps"
    with Served(*ROOT, *(("--root-path-kept",) if keeps else ())) as served:
        yield Shown(served, "/chat" if keeps else "")


def test_requests_streams_and_locations_work(shown: Shown) -> None:
    with shown.served.client() as client:
        assert client.post(shown.path("/chat/api/v1/chat"), json=HELLO).status_code == 200
        with client.stream("POST", shown.path("/chat/api/v1/chat/stream"), json=HELLO) as stream:
            assert b"event: result" in stream.read()
        begun = client.post(shown.path("/chat/api/v1/runs"), json=HELLO)
        location = begun.headers["location"]
        assert location.startswith("/chat/api/v1/runs/")
        eventually(lambda: client.get(shown.path(location)).json()["status"] == "completed")


def test_a_websocket_opens(shown: Shown) -> None:
    with connect(f"ws://127.0.0.1:{shown.served.port}{shown.path('/chat/api/v1/chat/ws')}") as ws:
        ws.send('{"type": "chat", "contact_id": "ann", "message": "hi"}')
        assert "run_id" in str(ws.recv())


def test_the_page_of_the_documentation_names_its_document_below_the_path(shown: Shown) -> None:
    with shown.served.client() as client:
        page = client.get(shown.path("/chat/docs")).text
        [document] = set(re.findall(r'href="([^"]*openapi\.json)"', page))
        assert document == "/chat/openapi.json"
        assert "/api/v1/chat" in client.get(shown.path(document)).json()["paths"]


def test_a_redirect_leads_below_the_path(shown: Shown) -> None:
    with shown.served.client() as client:
        moved = client.get(shown.path("/chat/docs/"))
        assert (moved.status_code, httpx.URL(moved.headers["location"]).path) == (307, "/chat/docs")


def test_a_probe_that_does_not_come_by_the_proxy_needs_no_prefix(shown: Shown) -> None:
    with shown.served.client() as client:
        assert client.get("/readyz").status_code == 200


def test_the_path_is_removed_once_at_most_so_that_a_rule_of_the_proxy_cannot_be_passed_by(shown: Shown) -> None:
    with shown.served.client() as client:
        assert client.get(shown.path("/chat/chat/readyz")).status_code == 404
        assert client.get(shown.path("/chat/%63hat/readyz")).status_code == 404
        assert client.get(f"{shown.prefix}x/readyz").status_code == 404


def test_a_path_with_other_letters_is_kept_too() -> None:
    with Served("--root-path", "/böse bots", "--root-path-kept") as served, served.client() as client:
        assert client.get("/b%C3%B6se%20bots/docs").status_code == 200
        assert client.get("/b%c3%b6se%20%62ots/docs").status_code == 200
        assert client.get("/docs").status_code == 200
        assert client.get("/b%C3%B6se/docs").status_code == 404
        assert client.get("/b%C3%B6se%20bots%2Fdocs").status_code == 404
        begun = client.post("/api/v1/runs", json=HELLO)
        assert begun.headers["location"].startswith("/b%C3%B6se%20bots/api/v1/runs/")
        eventually(lambda: client.get(begun.headers["location"]).json()["status"] == "completed")


def test_a_prefix_is_kept_only_if_one_is_named(tmp_path: Path) -> None:
    assert "name it with --root-path" in refusal(run_command("check", "--root-path-kept", cwd=tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "/a?b",
        "/a#b",
        "https://your-site.example/bot",
        "/a//b",
        "/a/../b",
        ".",
        " /a",
        "/a ",
        "/a\nb",
        '"/a"',
        "C:/a",
        "/\\a",
    ],
)
def test_what_is_not_the_beginning_of_a_path_is_refused(text: str, tmp_path: Path) -> None:
    told = refusal(run_command("config", "--root-path", text, cwd=tmp_path))
    assert told == (
        f"jimsapi: --root-path: {text!r} is not the beginning of a URL's path; give it without host and query, such as "
        "/bot or /tools/bot"
    )


@pytest.mark.parametrize("text", ["", "/", "/api", "api", "/api/", "/tools/bot", "/böse bots", "/v1.2/~ann"])
def test_paths_with_and_without_slashes_at_their_ends_are_accepted(text: str) -> None:
    assert ServerOptions(root_path=text).root_path == text
