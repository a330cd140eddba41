"""What plugins build lives beside the server: entered and left in order, and each on its own when it fails."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jimsapi import ThreadContext, create_api
from jimsapi.api.app import Api
from jimsapi.asgi.testing import TestClient
from jimsapi.cli.main import command_line
from jimsapi.plugins.errors import PluginError, StartError
from jimsapi.runs import sinks
from jimsapi.threads.errors import StoreUnusable
from tests.plugins.distributions import install

pytestmark = pytest.mark.anyio

LIFE = """
import asyncio
from contextlib import asynccontextmanager
import diary
from jimsapi import *

class Sink:
    name = "NAME"
    async def deliver(self, events):
        diary.events["NAME"] += [event.event_type for event in events]

@asynccontextmanager
async def life():
    diary.entries.append("enter NAME")
    diary.tasks.append(asyncio.current_task())
    BODY
    diary.entries.append("leave NAME")
    diary.tasks.append(asyncio.current_task())

@hookimpl
def jimsapi_event_sink():
    return life()
"""

DYING = """async with asyncio.TaskGroup() as group:
        group.create_task(diary.die())
        yield Sink()"""

DIARY = """
import asyncio
from collections import defaultdict

entries, tasks, events = [], [], defaultdict(list)
die_now = asyncio.Event()
dead = asyncio.Event()

async def die():
    await die_now.wait()
    asyncio.get_running_loop().call_later(0.05, dead.set)
    raise ConnectionError("the broker is gone")
"""

DESK = """
from contextlib import asynccontextmanager

import diary
from jimsapi import JSONResponse, hookimpl

@asynccontextmanager
async def database():
    diary.entries.append("open")
    yield
    diary.entries.append("close")

@hookimpl
def jimsapi_routes(router):
    @router.get("/desk", public=True)
    async def desk(request):
        return JSONResponse(diary.entries)

    return database()
"""


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message("hi")


def api(**settings: Any) -> Api:
    return create_api(echo, **({"store": "memory:"} | settings))


async def chat(client: TestClient, message: str = "hi") -> int:
    answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": message})
    return answer.status_code


@pytest.fixture
def diary(site: Path) -> Any:
    (site / "diary.py").write_text(DIARY)
    import diary  # type: ignore[import-not-found] # written above

    return diary


def live(site: Path, name: str, body: str = "yield Sink()") -> None:
    install(site, f"acme-{name}", LIFE.replace("BODY", body).replace("NAME", name))


async def test_context_managers_are_left_in_reverse_order_each_in_the_task_that_entered_it(
    site: Path, diary: Any
) -> None:
    for name in ("b", "a", "c"):
        live(site, name)
    async with TestClient(api()) as client:
        assert diary.entries == ["enter a", "enter b", "enter c"]
        assert await chat(client) == 200
    assert diary.entries[3:] == ["leave c", "leave b", "leave a"]
    assert len(set(diary.tasks[:3])) == 3
    assert diary.tasks[:3] == diary.tasks[:2:-1]
    assert diary.events["a"] == ["jims.lifecycle.thread_created", "comm.user_message", "comm.assistant_message"]
    assert diary.events["a"] == diary.events["b"] == diary.events["c"]


async def test_what_a_hook_of_routes_returns_is_open_while_requests_are_answered(site: Path, diary: Any) -> None:
    install(site, "acme-desk", DESK)
    async with TestClient(api()) as client:
        assert (await client.get("/desk")).json() == ["open"]
    assert diary.entries == ["open", "close"]


async def test_one_whose_task_group_dies_unwinds_no_other_and_requests_go_on(
    site: Path, diary: Any, caplog: pytest.LogCaptureFixture
) -> None:
    live(site, "a")
    live(site, "b", DYING)
    live(site, "c")
    async with TestClient(api()) as client:
        diary.die_now.set()
        await diary.dead.wait()
        assert await chat(client) == 200
        assert "leave a" not in diary.entries
        assert "leave c" not in diary.entries
    assert diary.entries[3:] == ["leave c", "leave a"]
    assert "jimsapi_event_sink of acme-b died" in caplog.text
    assert diary.events["a"] == diary.events["c"] != []


async def test_one_that_fails_on_entering_stops_the_start_and_those_before_it_are_left(site: Path, diary: Any) -> None:
    live(site, "a")
    live(site, "b", "raise ConnectionError('no broker')\n    yield")
    live(site, "c")
    with pytest.raises(PluginError, match=r"acme-b.*ConnectionError: no broker") as refused:
        async with api().lifespan():
            pass
    assert type(refused.value.__cause__) is ConnectionError
    assert diary.entries == ["enter a", "enter b", "leave a"]


async def test_one_that_fails_on_leaving_is_logged_and_the_others_are_left(
    site: Path, diary: Any, caplog: pytest.LogCaptureFixture
) -> None:
    live(site, "a")
    live(site, "b", "yield Sink()\n    raise OSError('disk')")
    async with api().lifespan():
        pass
    assert diary.entries[2:] == ["leave a"]
    assert "acme-b failed on exit: OSError: disk" in caplog.text


async def test_a_start_that_fails_late_leaves_what_was_entered_and_may_be_tried_again(site: Path, diary: Any) -> None:
    live(site, "a")
    served = api(store=f"sqlite:///{site}/missing/jims.db")
    for _ in range(2):
        with pytest.raises(StoreUnusable, match="missing"):
            async with served.lifespan():
                pass
    served = api()
    for _ in range(2):
        async with TestClient(served) as client:
            assert await chat(client) == 200
    assert diary.entries == ["enter a", "leave a"] * 2


SINK = """
import asyncio
import diary
from jimsapi import *

class Sink:
    name = "s"
    async def deliver(self, events):
        diary.entries.append(len(events))
        BODY

@hookimpl
def jimsapi_event_sink():
    return Sink()
"""


def sink_outcome(served: Api, outcome: str) -> int:
    assert served.service is not None
    [queue] = [sink for sink in served.service.sinks if sink.name == "s"]
    return queue.outcomes[outcome]


async def settled(served: Api, outcome: str, count: int) -> None:
    async with asyncio.timeout(20):
        while sink_outcome(served, outcome) < count:
            await asyncio.sleep(0.005)


async def test_a_sink_that_fails_loses_events_is_counted_and_harms_no_request(
    site: Path, diary: Any, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "acme-sink", SINK.replace("BODY", "raise OSError('full')"))
    served = api()
    async with TestClient(served) as client:
        assert [await chat(client) for _ in range(2)] == [200, 200]
        await settled(served, "failed", 5)
        assert 'jims_sink_events_total{outcome="failed",sink="s"} 5.0' in served.metrics().replace(
            'sink="s",outcome="failed"', 'outcome="failed",sink="s"'
        )
    assert "event sink s failed: OSError: full" in caplog.text


@pytest.mark.parametrize("error", ["asyncio.CancelledError", "SystemExit(3)"])
async def test_a_sink_that_raises_what_is_no_mere_error_gets_the_next_batch(site: Path, diary: Any, error: str) -> None:
    install(site, "acme-sink", SINK.replace("BODY", f"raise {error}"))
    served = api()
    async with TestClient(served) as client:
        assert await chat(client) == 200
        await settled(served, "failed", 3)
        assert await chat(client) == 200
        await settled(served, "failed", 5)


async def test_a_sink_that_hangs_is_cut_off_and_gets_the_next_batch(
    site: Path, diary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "DELIVERY_TIMEOUT", 0.02)
    install(site, "acme-sink", SINK.replace("BODY", "await asyncio.sleep(3600)"))
    served = api()
    async with TestClient(served) as client:
        assert await chat(client) == 200
        await settled(served, "failed", 3)
        assert await chat(client) == 200
        await settled(served, "failed", 5)


async def test_a_sink_that_does_not_keep_up_drops_the_newest_events_and_holds_nobody_up(
    site: Path, diary: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sinks, "QUEUE_LIMIT", 4)
    install(site, "acme-sink", SINK.replace("BODY", "await diary.die_now.wait()"))
    served = api()
    async with TestClient(served) as client:
        assert [await chat(client) for _ in range(6)] == [200] * 6
        dropped = sink_outcome(served, "dropped")
        assert dropped > 0
        diary.die_now.set()
        await settled(served, "delivered", 13 - dropped)
        assert sink_outcome(served, "dropped") == dropped
    assert caplog.text.count("event sink s does not keep up") == 1


RESOLVER = """
import asyncio
from jimsapi import *

class Mine:
    name = "mine"
    async def resolve(self, inbound):
        match inbound.message:
            case "raise": raise LookupError("sesame")
            case "cancel": raise asyncio.CancelledError
            case "exit": raise SystemExit(3)
            case "rubbish": return 7
            case "text": return "latest"
            case "nothing": return []
            case "one": return New()
            case "new": return [New()]
            case "external": return [ByExternalId("x"), New(external_id="x")]
        return None

@hookimpl
def jimsapi_thread_resolver():
    return Mine()
"""


@pytest.mark.parametrize("store", ["memory:", "sqlite:///jims.db"])
async def test_a_resolver_that_fails_fails_its_request_alone(site: Path, store: str) -> None:
    install(site, "acme-resolver", RESOLVER)
    async with TestClient(api(store=store), raise_app_exceptions=False) as client:
        statuses = [await chat(client, word) for word in ("raise", "rubbish", "text", "nothing", "new", "hi")]
        assert statuses == [500, 500, 500, 404, 200, 200]
        async with asyncio.timeout(30):
            assert [await chat(client, word) for word in ("cancel", "exit", "hi")] == [500, 500, 200]
        answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "raise"})
        assert answer.json() == {"detail": "Internal Server Error"}
        assert [await chat(client, word) for word in ("external", "external", "hi")] == [200, 200, 200]
        threads = (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"]
    assert len(threads) == 2


@pytest.mark.parametrize(
    ("word", "returned"), [("rubbish", "int"), ("text", "str"), ("one", "New")], ids=["number", "text", "one selector"]
)
async def test_the_log_names_a_resolver_that_returns_no_list_of_selectors(
    site: Path, caplog: pytest.LogCaptureFixture, word: str, returned: str
) -> None:
    install(site, "acme-resolver", RESOLVER)
    async with TestClient(api(), raise_app_exceptions=False) as client:
        assert await chat(client, word) == 500
    assert "Mine object at" in caplog.text
    assert f"returned {returned}, not a list of selectors" in caplog.text


async def test_the_first_resolver_that_answers_decides_in_the_order_of_the_distributions(site: Path) -> None:
    install(site, "bbb-resolver", RESOLVER.replace('case "new": return [New()]', 'case "new": return []'))
    install(site, "aaa-resolver", RESOLVER)
    async with TestClient(api()) as client:
        assert await chat(client, "new") == 200


WRAPPER = """
from jimsapi import *

@hookimpl
def jimsapi_asgi_wrapper():
    def wrapper(app):
        async def wrapped(scope, receive, send):
            async def mark(message):
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (b"x-passed", b"NAME")]
                await send(message)
            await app(scope, receive, mark)
        return wrapped
    return wrapper
"""


async def test_an_adapted_app_brings_its_store_and_its_window_which_explicit_options_override(site: Path) -> None:
    install(
        site,
        "acme-flow",
        """
        from jimsapi import *

        class Flow:
            async def answer(self, ctx):
                ctx.send_message(str(len(ctx.history)))

        @hookimpl
        def jimsapi_adapt_app(obj):
            if isinstance(obj, Flow):
                return JimsApp(obj.answer, name="flow", store="sqlite:///flow.db", context_events=2)
        """,
    )
    (site / "flows.py").write_text("from acme_flow import Flow\n\ndef app():\n    return Flow()\n")

    async def lengths(**settings: Any) -> list[str]:
        async with TestClient(create_api("flows", **settings)) as client:
            body = {"contact_id": "ann", "message": "hi"}
            answers = [await client.post("/api/v1/chat", json=body) for _ in range(3)]
        return [answer.json()["assistant_messages"][0] for answer in answers]

    assert await lengths() == ["1", "3", "4"]  # 2 messages, and twice as many events of any type
    assert (site / "flow.db").is_file()
    assert not (site / "jims.db").exists()
    assert await lengths(store="memory:", context_events=200) == ["1", "3", "5"]
    assert await lengths(store="sqlite:///jims.db") == ["1", "3", "4"]
    assert (site / "jims.db").is_file()


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/nowhere", 404), ("/api/v1/threads", 401)])
async def test_wrappers_see_every_request_the_first_distribution_s_outermost(
    site: Path, path: str, status: int
) -> None:
    for name in ("b", "a"):
        install(site, f"acme-{name}", WRAPPER.replace("NAME", name))
    served = api(api_key="k")
    for _ in range(2):  # a second lifespan does not wrap twice
        async with TestClient(served) as client:
            answer = await client.get(path)
        assert (answer.status_code, answer.headers.get_list("x-passed")) == (status, ["b", "a"])


async def test_check_lists_things_that_need_entering_without_entering_them(
    site: Path, diary: Any, caplog: pytest.LogCaptureFixture
) -> None:
    live(site, "a")
    install(
        site,
        "acme-wrapper",
        LIFE.replace("BODY", "yield lambda app: app").replace("NAME", "w").replace("event_sink", "asgi_wrapper"),
    )
    install(
        site, "acme-store", LIFE.replace("BODY", "yield").replace("NAME", "s").replace("event_sink", "thread_store")
    )
    (site / "bot.py").write_text("async def app(ctx): pass\n")
    logging.getLogger("jimsapi").setLevel(logging.INFO)
    arguments = ["check", "--app", "bot"]
    ran = await asyncio.to_thread(CliRunner().invoke, command_line(arguments), arguments)
    assert ran.exit_code == 0, ran.output
    assert "acme_a (acme-a 1.0): jimsapi_event_sink" in ran.output
    assert "acme_wrapper (acme-wrapper 1.0): jimsapi_asgi_wrapper" in ran.output
    assert diary.entries == []


MANAGED_PROVIDER = """
from contextlib import asynccontextmanager
from jimsapi import *

class Gate:
    name = "gate"
    async def authenticate(self, connection):
        return Identity("anybody")

@asynccontextmanager
async def life():
    yield Gate()

@hookimpl
def jimsapi_auth_provider(settings):
    return life()
"""


@pytest.mark.parametrize(("order", "starts"), [("gate", True), ("gate,key", True), ("managed", False)])
async def test_auth_order_knows_a_provider_by_the_name_that_it_has_once_it_was_entered(
    site: Path, order: str, starts: bool
) -> None:
    install(site, "managed", MANAGED_PROVIDER)
    served = create_api(echo, store="memory:", api_key="k", auth_order=order)
    if not starts:
        with pytest.raises(StartError, match="--auth-order names managed"):
            async with served.lifespan():
                pass
        return
    async with TestClient(served) as client:
        assert await chat(client) == 200
