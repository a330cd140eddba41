"""The page on threads: its pipeline is served, and its commands do what it says."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.snippets import blocks, modules
from tests.serving import Served

PAGE = "docs/threads.md"
LIST, FILTER, SEARCH, CHANGE, FORK, RATE, USAGE, CONTACTS = blocks(PAGE, "sh")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    for name, code in modules(PAGE).items():
        Path(folder, name).write_text(code, encoding="utf-8")
    with Served("--app", "echo:app", folder=folder) as server:
        yield server


def shell(served: Served, command: str, **variables: str) -> Any:
    command = command.replace("http://localhost:8080", served.url)
    environment = {**os.environ, **variables}
    done = subprocess.run(["bash", "-euc", command], env=environment, capture_output=True, check=True, timeout=30)
    return json.loads(done.stdout or b"null")


def test_the_commands_of_the_page_list_change_and_fork_a_thread(served: Served) -> None:
    with httpx.Client(base_url=served.url) as client:
        for message in ("Who likes quokkas?", "And wombats?"):
            said = client.post("/api/v1/chat", json={"contact_id": "ann", "message": message})
        thread = said.json()["thread_id"]
        events = client.get(f"/api/v1/threads/{thread}/events").json()["events"]
    [listed] = shell(served, LIST)["threads"]
    assert (listed["title"], listed["preview"]) == ("Who likes quokkas?", "You said: And wombats?")
    changed = shell(served, CHANGE, THREAD=thread)
    assert (changed["title"], changed["metadata"]) == ("Marsupials", {"stars": 5})
    assert shell(served, LIST)["threads"] == []
    assert shell(served, FILTER)["threads"] == [changed]
    edited = events[3]["event_id"]
    shell(served, RATE, THREAD=thread, EVENT=edited)
    [rated] = httpx.get(f"{served.url}/api/v1/threads/{thread}/feedback").json()["feedback"]
    assert (rated["event_id"], rated["rating"], rated["comment"]) == (edited, -1, "Too short")
    fork = shell(served, FORK, THREAD=thread, EVENT=edited)
    assert fork["parent"] == {"thread_id": thread, "event_id": events[2]["event_id"]}
    assert (fork["title"], fork["metadata"]) == ("Who likes quokkas?", {"stars": 5})
    assert shell(served, SEARCH)["threads"] == []
    httpx.post(f"{served.url}/api/v1/chat", json={"contact_id": "ann", "message": "A quokka has a short tail."})
    [found] = shell(served, SEARCH)["threads"]
    assert (found["thread_id"], found["match"]["text"]) == (
        fork["thread_id"],
        "You said: A quokka has a short tail.",
    )


def test_the_command_of_the_page_lists_a_contact_with_the_fields_that_it_names(served: Served) -> None:
    httpx.post(f"{served.url}/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    [listed] = shell(served, CONTACTS)["contacts"]
    assert listed["contact_id"] == "ann"
    text = (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8").partition("## List contacts")[2]
    assert all(f"`{field}`" in text for field in listed)


def test_the_commands_of_the_page_show_usage_with_the_fields_that_it_names() -> None:
    text = (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8")
    with Served("--app", "tests.apps.scripted:app") as served, httpx.Client(base_url=served.url) as client:
        said = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "use 7"})
        for number, command in enumerate(USAGE.splitlines()):
            shown = shell(served, command, THREAD=said.json()["thread_id"])
            assert shown["total"].keys() == {"calls", "input_tokens", "output_tokens", "cached_tokens", "cost"}
            if number == 0:  # the others name days and a key of the page
                assert [shown["total"][name] for name in ("calls", "input_tokens", "output_tokens")] == [1, 7, 1]
            for field in (shown.keys() | shown["total"].keys()) - {"first_day", "last_day"}:
                assert f"`{field}`" in text, field


def test_the_page_names_every_field_of_a_thread_that_is_not_named_elsewhere(served: Served) -> None:
    text = (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8")
    with httpx.Client(base_url=served.url) as client:
        model = client.get("/openapi.json").json()["components"]["schemas"]["ThreadItem"]["properties"]
    for field in model.keys() - {"thread_id", "contact_id", "created_at", "thread_config"}:
        assert f"| `{field}` |" in text, field
