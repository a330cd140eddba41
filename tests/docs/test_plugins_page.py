"""Every hook is on the page for plugin authors with its exact signature, and every plugin on the page works."""

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.api.app import Api, configure
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins import StartError, build_file_store, hooks
from jimsapi.runs.stream import Delta
from jimsapi.threads import FileStore, NewFile
from tests.docs.snippets import ROOT, blocks, install, modules, pip_install

pytestmark = pytest.mark.anyio

PAGE = "docs/plugins.md"
MODULES = modules(PAGE)
PLUGINS = [name for name in MODULES if name.startswith("jimsapi_")]

Plugin = Callable[..., None]


@pytest.fixture
def plugin(site: Path) -> Plugin:
    """Installs plugins of the page, by their names without `jimsapi_`."""

    def install_all(*names: str) -> None:
        for name in names:
            install(site, f"jimsapi_{name}.py", MODULES[f"jimsapi_{name}.py"])

    return install_all


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message(f"You said: {ctx.get_last_user_message()}")


def api(app: Any = echo, store: str = "memory:", **settings: Any) -> Api:
    return create_api(app, store=store, **settings)


async def chat(client: TestClient, message: str, contact: str = "ann") -> dict[str, Any]:
    answer = await client.post("/api/v1/chat", json={"contact_id": contact, "message": message})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def signatures() -> list[str]:
    """Each hook as its specification declares it, in the order of the file."""
    tree = ast.parse(inspect.getsource(hooks))
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("jimsapi_"):
            assert node.returns is not None
            found.append(f"{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}".replace("'", ""))
    return found


def test_every_hook_and_no_other_is_described_with_its_exact_signature() -> None:
    headings = re.findall(r"^### `(.*)`$", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == signatures()


def test_every_hook_is_implemented_by_a_plugin_of_its_own_section() -> None:
    sections = re.split(r"^### `(\w+).*$", (ROOT / PAGE).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for hook, section in zip(sections[::2], sections[1::2], strict=True):
        assert f"@hookimpl\ndef {hook}(" in section, hook


def test_every_python_block_is_a_module_that_these_tests_install() -> None:
    assert len(MODULES) == len(blocks(PAGE, "python"))
    source = Path(__file__).read_text(encoding="utf-8")
    for name in PLUGINS:
        assert f'"{name.removeprefix("jimsapi_").removesuffix(".py")}"' in source, name


async def test_the_first_plugin_installed_by_pip_is_found_and_answers(site: Path, tmp_path: Path) -> None:
    pip_install(PAGE, "jimsapi_motto.py", tmp_path / "jimsapi-motto", site)
    async with TestClient(api(api_key="k")) as client:
        answer = await client.get("/api/v1/motto")
    assert (answer.status_code, answer.json()) == (200, {"motto": "Ask."})


@pytest.mark.parametrize(
    ("settings", "threads"),
    [({}, 1), ({"session_pause": 0}, 2), ({"session_pause": "60"}, 1), ({"session_pause": ""}, 1)],
)
async def test_an_option_reaches_the_hooks_of_its_plugin(
    plugin: Plugin, settings: dict[str, Any], threads: int
) -> None:
    plugin("session")
    async with TestClient(api(**settings)) as client:
        answers = [await chat(client, "hi"), await chat(client, "again")]
    assert len({answer["thread_id"] for answer in answers}) == threads


async def test_a_loader_loads_references_of_its_form_and_leaves_others(plugin: Plugin, site: Path) -> None:
    plugin("say")
    (site / "plain.py").write_text("async def app(ctx):\n    ctx.send_message('plain')\n")
    for reference, said in (("say:hello", "hello"), ("plain", "plain")):
        async with TestClient(api(reference)) as client:
            assert (await chat(client, "hi"))["assistant_messages"] == [said]


async def test_the_operator_reads_why_a_reference_is_faulty(plugin: Plugin) -> None:
    plugin("say")
    with pytest.raises(RuntimeError, match="give the text to say, for example say:hello"):
        async with TestClient(api("say:")):
            pass


async def test_a_foreign_app_object_is_recognised(plugin: Plugin, site: Path) -> None:
    plugin("script")
    (site / "lines.py").write_text("from jimsapi_script import Script\n\napp = Script({'hi': 'Hello!'})\n")
    served = api("lines")
    async with TestClient(served) as client:
        answers = [await chat(client, "hi"), await chat(client, "what?")]
        assert 'pipeline="script"' in served.metrics()
    assert [answer["assistant_messages"] for answer in answers] == [["Hello!"], ["That is not in my script."]]


@pytest.mark.parametrize(
    ("headers", "status", "challenge"),
    [({"x-ticket": "sesame"}, 200, None), ({"x-ticket": "simsim"}, 401, "Ticket"), ({}, 401, "Ticket")],
)
async def test_a_ticket_admits_its_bearer_and_nobody_else(
    plugin: Plugin, headers: dict[str, str], status: int, challenge: str | None
) -> None:
    plugin("ticket")
    async with TestClient(api(ticket_secret="sesame"), headers=headers) as client:
        answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    assert (answer.status_code, answer.headers.get("www-authenticate")) == (status, challenge)


async def test_a_store_opens_what_its_url_names(plugin: Plugin, site: Path) -> None:
    plugin("rooms")
    for created in (True, False):
        async with TestClient(api(store="room:support")) as client:
            assert (await chat(client, "hi"))["created_new_thread"] is created
    assert (site / "support.db").is_file()


async def test_the_operator_reads_why_a_store_is_faulty(plugin: Plugin) -> None:
    plugin("rooms")
    with pytest.raises(RuntimeError, match="give a room's name, for example room:support"):
        async with TestClient(api(store="room:../support")):
            pass


async def test_a_file_store_keeps_the_files_of_its_url(plugin: Plugin) -> None:
    plugin("attic")
    settings = configure([], {}).settings
    assert (await put_and_read(build_file_store("attic:", "--files-store", settings))) == b"hello"
    with pytest.raises(StartError, match=r"--files-store cellar:: no installed plugin keeps files there"):
        build_file_store("cellar:", "--files-store", settings)


async def put_and_read(store: FileStore) -> bytes:
    async def content() -> AsyncIterator[bytes]:
        yield b"hel"
        yield b"lo"

    async with store:
        new = NewFile(contact_id="ann", name="a.txt", type="text/plain", size=None, limit=100)
        file = await store.put(new, content(), 1000)
        return b"".join([piece async for piece in await store.read(file, 0, file.size)])


async def test_a_resolver_gives_each_contact_its_thread_of_the_day(plugin: Plugin) -> None:
    plugin("daily")
    async with TestClient(api()) as client:
        ann, again = await chat(client, "hi"), await chat(client, "again")
        ben = await chat(client, "hi", contact="ben")
        events = (await client.get(f"/api/v1/threads/{ann['thread_id']}/events")).json()["events"]
    # Around midnight the second message rightly opens the next day's thread.
    assert again["created_new_thread"] is (again["thread_id"] != ann["thread_id"])
    assert ben["thread_id"] not in (ann["thread_id"], again["thread_id"])
    assert events


async def test_a_resolver_uses_a_header_and_the_last_thread(plugin: Plugin) -> None:
    plugin("project")
    async with TestClient(api()) as client:
        body = {"contact_id": "ann", "message": "hi", "thread_config": {"language": "de"}}
        first = (await client.post("/api/v1/chat", json=body)).json()["thread_id"]
        answers = [
            await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}, headers={"x-project": name})
            for name in ("zoo", "shop", "zoo")
        ]
        listed = (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"]
    zoo, shop, again = [answer.json()["thread_id"] for answer in answers]
    assert again == zoo
    assert len({first, zoo, shop}) == 3
    assert [thread["thread_config"] for thread in listed] == [{"language": "de"}] * 3


async def test_a_sink_has_delivered_every_stored_event_when_the_server_has_stopped(plugin: Plugin, site: Path) -> None:
    plugin("audit")
    async with TestClient(api(audit_file=site / "audit.jsonl")) as client:
        thread = (await chat(client, "hi"))["thread_id"]
    lines = [orjson.loads(line) for line in (site / "audit.jsonl").read_bytes().splitlines()]
    assert [line["type"] for line in lines] == [
        "jims.lifecycle.thread_created",
        "comm.user_message",
        "comm.assistant_message",
    ]
    assert {line["thread"] for line in lines} == {thread}


async def test_by_a_link_a_server_shows_the_live_items_of_another_one_s_run(plugin: Plugin, site: Path) -> None:
    plugin("post")
    (site / "sockets").mkdir()

    async def speak(ctx: ThreadContext) -> None:
        await ctx.stream("Hel")
        await asyncio.Event().wait()

    one, other = (api(speak, post_folder=site / "sockets") for _ in range(2))
    async with TestClient(one) as client, TestClient(other):
        run = (await client.post("/api/v1/runs", json={"contact_id": "ann", "message": "hi"})).json()["run_id"]
        assert other.service is not None
        async for _, item in other.service.watch_elsewhere(UUID(run), 0):
            if isinstance(item, Delta):
                break
        assert isinstance(item, Delta)
        assert item.content == "Hel"
        await client.post(f"/api/v1/runs/{run}/cancel")
    assert list((site / "sockets").iterdir()) == []


async def test_an_observer_is_told_of_runs(plugin: Plugin, caplog: pytest.LogCaptureFixture) -> None:
    plugin("slow")
    async with TestClient(api(slow_seconds=0)) as client:
        answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    [record] = [record for record in caplog.records if record.name == "jimsapi_slow"]
    run = re.match(r"run (\S+) took 0\.\d s and is completed", record.getMessage())
    assert run is not None
    assert UUID(run[1]) == UUID(answer.headers["x-run-id"])


async def test_a_collector_is_scraped_with_ours(plugin: Plugin) -> None:
    plugin("disk")
    served = api()
    async with TestClient(served):
        text = served.metrics()
    assert re.search(r"^disk_free_bytes \d", text, re.MULTILINE)
    assert "jims_http_requests" in text


async def test_a_route_chats_is_locked_and_is_documented(plugin: Plugin) -> None:
    plugin("desk")
    async with TestClient(api(api_key="k")) as client:
        locked = await client.post("/desk", json={"text": "Open?"})
        client.headers["authorization"] = "Bearer k"
        answer = await client.post("/desk", json={"text": "Open?"})
        faulty = await client.post("/desk", json={})
        operation = (await client.get("/openapi.json")).json()["paths"]["/desk"]["post"]
    assert locked.status_code == 401
    assert answer.json() == {"answer": "You said: Open?"}
    assert (faulty.status_code, faulty.json()["detail"][0]["loc"]) == (422, ["body", "text"])
    assert "Answer a question in the thread of the desk." in (operation.get("description"), operation.get("summary"))
    assert {"401", "403"} <= set(operation["responses"])


async def test_a_protocol_answers_at_once_or_later_and_a_repeated_post_once(plugin: Plugin) -> None:
    plugin("bridge")
    release, sent = asyncio.Event(), asyncio.Queue[tuple[str, str]]()
    threads: list[UUID] = []

    async def app(ctx: ThreadContext) -> None:
        threads.append(ctx.thread_id)
        if ctx.get_last_user_message() == "hard":
            await release.wait()
        ctx.send_message(f"You said: {ctx.get_last_user_message()}")

    async def post(client: TestClient, post_id: str, text: str) -> str:
        answer = await client.post("/bridge", json={"post_id": post_id, "person": "ann", "text": text})
        said: str = answer.json()["text"]
        return said

    async with TestClient(api(app)) as client:
        assert await post(client, "1", "hi") == await post(client, "1", "hi") == "You said: hi"
        assert await post(client, "2", "/new") == "You said: Hello"
        assert await post(client, "3", "more") == "You said: more"
        bridge = sys.modules["jimsapi_bridge"]
        bridge.send_to_platform = lambda *told: sent.put(told)  # type: ignore[attr-defined]
        for _ in range(2):
            assert await post(client, "4", "hard") == "One moment, please."
        release.set()
        assert await asyncio.wait_for(sent.get(), 30) == ("ann", "You said: hard")
    assert sent.empty()  # the client has waited for background work
    first, second, *others = threads
    assert first != second
    assert others == [second, second]


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/api/v1/threads?contact_id=ann", 401), ("/no", 404)])
async def test_a_wrapper_sees_every_answer(plugin: Plugin, path: str, status: int) -> None:
    plugin("hsts")
    async with TestClient(api(api_key="k")) as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.headers.get("strict-transport-security")) == (status, "max-age=31536000")


async def test_a_wrapper_of_pipelines_sees_each_call(plugin: Plugin, caplog: pytest.LogCaptureFixture) -> None:
    plugin("stopwatch")
    with caplog.at_level("INFO", "stopwatch"):
        async with TestClient(api()) as client:
            await chat(client, "hi")
    [record] = [record for record in caplog.records if record.name == "stopwatch"]
    assert re.fullmatch(r"echo took 0\.\d{3} s", record.getMessage())


async def test_a_wrapper_of_pipelines_observes_what_they_do(plugin: Plugin, caplog: pytest.LogCaptureFixture) -> None:
    async def search(ctx: ThreadContext) -> None:
        async with ctx.tool("search"):
            ctx.usage(model="m", input_tokens=812, output_tokens=44)

    plugin("toolbook")
    with caplog.at_level("INFO", "toolbook"):
        async with TestClient(api(search)) as client:
            await chat(client, "hi")
    begins, used, ended = [one.getMessage() for one in caplog.records if one.name == "toolbook"]
    assert (begins, used) == ("search begins", "m has used 856 tokens")
    assert re.fullmatch(r"search ended after 0\.\d{3} s", ended)


async def test_a_wrapper_of_the_store_sees_its_calls(plugin: Plugin, caplog: pytest.LogCaptureFixture) -> None:
    plugin("deletions")
    async with TestClient(api()) as client:
        await chat(client, "hi")
        assert (await client.delete("/api/v1/contacts?contact_id=ann")).status_code == 204
        assert (await chat(client, "again"))["created_new_thread"]
    assert "a contact is deleted with all its threads" in caplog.text


def test_a_command_of_a_plugin_runs_as_a_subcommand(plugin: Plugin, site: Path) -> None:
    plugin("mint")
    for flags, length in (([], 43), (["--mint-bytes", "64"], 86)):
        ran = run(site, "jimsapi", *flags, "mint")
        assert ran.returncode == 0, ran.stderr
        assert len(ran.stdout.strip()) == length
    assert "Print a new random ticket." in run(site, "jimsapi", "--help").stdout


@pytest.mark.parametrize(("public", "status"), [(True, 200), (False, 401)])
async def test_two_hooks_of_one_plugin_share_an_object(plugin: Plugin, public: bool, status: int) -> None:
    plugin("tally")
    async with TestClient(api(api_key="k", tally_public=public)) as client:
        assert (await client.get("/api/v1/tally")).status_code == status
        client.headers["authorization"] = "Bearer k"
        await chat(client, "hi")
        await chat(client, "again")
        assert (await client.get("/api/v1/tally")).json() == {"completed": 2}


def test_all_plugins_of_the_page_work_beside_one_another(plugin: Plugin, site: Path) -> None:
    names = [name.removeprefix("jimsapi_").removesuffix(".py") for name in PLUGINS]
    plugin(*names)
    listed = run(site, "jimsapi", "plugins")
    checked = run(
        site, "jimsapi", "check", "--app", "say:hello", "--store", "room:support", "--ticket-secret", "sesame"
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for name in names:
        assert f"jimsapi-{name}" in listed.stdout
        assert f"jimsapi-{name}" in checked.stdout
    assert "sesame" not in checked.stdout + checked.stderr


def test_the_page_s_own_test_passes_and_fails_without_its_plugin(plugin: Plugin, site: Path) -> None:
    (site / "test_motto.py").write_text(MODULES["test_motto.py"])
    without = run(site, "pytest", "-q", "-p", "no:cacheprovider", "test_motto.py")
    plugin("motto")
    with_it = run(site, "pytest", "-q", "-p", "no:cacheprovider", "test_motto.py")
    assert (without.returncode, with_it.returncode) == (1, 0), without.stdout + with_it.stdout


def run(site: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=site,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
