"""Hooks of one plugin share objects, plugins wrap pipelines and the store, and an app has resources."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.api.app import Api
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.errors import PluginError, StartError
from tests.plugins.distributions import install

pytestmark = pytest.mark.anyio

BY_FUNCTIONS = """
from jimsapi import *
from prometheus_client.core import CounterMetricFamily

class Visits:
    def __init__(self, settings):
        self.step = settings.get(VisitOptions).step
        self.count = 0
    def on_run(self, record):
        self.count += self.step
    def collect(self):
        yield CounterMetricFamily("visits", "Visits.", value=self.count)

class VisitOptions(Options, prefix="visits"):
    step: int = option(1, help="What a visit counts.")

@hookimpl
def jimsapi_options():
    return VisitOptions

@hookimpl
def jimsapi_observer(settings):
    return settings.shared(Visits)

@hookimpl
def jimsapi_metrics(registry, settings):
    registry.register(settings.shared(Visits))
"""
BY_CLASS = """
from jimsapi import *
from prometheus_client.core import CounterMetricFamily

class Visits:
    def __init__(self):
        self.count = 0
    def on_run(self, record):
        self.count += 1
    def collect(self):
        yield CounterMetricFamily("visits", "Visits.", value=self.count)
    @hookimpl
    def jimsapi_observer(self):
        return self
    @hookimpl
    def jimsapi_metrics(self, registry):
        registry.register(self)
"""
WRAPPING = """
import diary
from jimsapi import *

def named(kind):
    def wrap(inner, name=None):
        diary.lines.append(f"NAME wraps {kind} {name or ''}".strip())
        BODY
    return wrap

@hookimpl
def jimsapi_KIND_wrapper():
    return named("KIND")
"""
PIPELINE = """
        async def outer(ctx):
            diary.lines.append("NAME begins")
            await inner(ctx)
            diary.lines.append("NAME ends")
        return outer"""

GENERATOR = """
        async def outer(ctx):
            await inner(ctx)
            yield "b"
            yield "ye"
        return outer"""


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message(f"You said: {ctx.get_last_user_message()}")


def api(app: Any = echo, **options: Any) -> Api:
    return create_api(app, **{"store": "memory:", "api_key": "k", **options})


async def chat(client: TestClient) -> list[str]:
    body = {"contact_id": "ann", "message": "hi"}
    answer = await client.post("/api/v1/chat", json=body, headers={"authorization": "Bearer k"})
    assert answer.status_code == 200, answer.text
    messages: list[str] = answer.json()["assistant_messages"]
    return messages


@pytest.mark.parametrize(("code", "point"), [(BY_FUNCTIONS, "acme_visits"), (BY_CLASS, "acme_visits:Visits")])
async def test_an_observer_and_its_collector_are_one_object_in_each_app(site: Path, code: str, point: str) -> None:
    install(site, "acme-visits", code, point=f"visits = {point}")
    one, other = api(), api()
    async with TestClient(one) as client, TestClient(other) as quiet:
        await chat(client)
        await chat(client)
        await chat(quiet)
        assert "visits_total 2.0" in one.metrics()
        assert "visits_total 1.0" in other.metrics()


async def test_each_start_of_an_app_has_objects_of_its_own(site: Path) -> None:
    install(site, "acme-visits", BY_FUNCTIONS)
    served = api(visits_step=5)
    for _ in range(2):
        async with TestClient(served) as client:
            await chat(client)
            assert "visits_total 5.0" in served.metrics()


async def test_a_class_that_cannot_be_created_is_named(site: Path) -> None:
    install(
        site, "acme-visits", BY_CLASS.replace("__init__(self)", "__init__(self, size)"), point="v = acme_visits:Visits"
    )
    with pytest.raises(PluginError, match=r"plugin v .* TypeError: .*missing 1 required positional argument: 'size'"):
        async with api().lifespan():
            pass


async def test_the_pipeline_wrapper_of_the_first_plugin_is_the_outermost(site: Path) -> None:
    (site / "diary.py").write_text("lines = []\n")
    for name in ("a-wrapper", "b-wrapper"):
        install(site, name, WRAPPING.replace("BODY", PIPELINE).replace("KIND", "pipeline").replace("NAME", name))
    import diary  # type: ignore[import-not-found]

    async with TestClient(api(JimsApp(echo, name="bot"))) as client:
        assert await chat(client) == ["You said: hi"]
    assert diary.lines == [
        "b-wrapper wraps pipeline bot",
        "a-wrapper wraps pipeline bot",
        "a-wrapper begins",
        "b-wrapper begins",
        "b-wrapper ends",
        "a-wrapper ends",
    ]


async def test_a_pipeline_wrapper_may_return_an_async_generator(site: Path) -> None:
    (site / "diary.py").write_text("lines = []\n")
    install(site, "a-wrapper", WRAPPING.replace("BODY", GENERATOR).replace("KIND", "pipeline").replace("NAME", "a"))
    async with TestClient(api()) as client:
        assert await chat(client) == ["You said: hi", "bye"]


@pytest.mark.parametrize(
    ("kind", "body", "fault"),
    [
        ("pipeline", "return 7", "what jimsapi_pipeline_wrapper built returned a int, which is not an async pipeline"),
        ("pipeline", "1 / 0", "what jimsapi_pipeline_wrapper built failed: ZeroDivisionError: division by zero (at "),
        ("store", "return 7", "what jimsapi_store_wrapper built returned a store that has no ping()"),
        ("store", "1 / 0", "what jimsapi_store_wrapper built failed: ZeroDivisionError: division by zero (at "),
    ],
)
async def test_a_faulty_wrapper_stops_the_start(site: Path, kind: str, body: str, fault: str) -> None:
    (site / "diary.py").write_text("lines = []\n")
    install(site, "a-wrapper", WRAPPING.replace("BODY", body).replace("KIND", kind).replace("NAME", "a"))
    with pytest.raises(PluginError) as refused:
        async with api().lifespan():
            pass
    assert fault in str(refused.value)
    assert "plugin a_wrapper (a_wrapper, distribution a-wrapper 1.0)" in str(refused.value)


async def test_pipelines_read_what_the_lifespan_of_their_app_yields() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[dict[str, str]]:
        seen.append("entered")
        yield {"greeting": "Hello"}
        seen.append("left")

    async def greet(ctx: ThreadContext) -> None:
        ctx.send_message(f"{ctx.resources['greeting']}!")

    async with TestClient(api(JimsApp(greet, lifespan=lifespan))) as client:
        assert seen == ["entered"]
        assert await chat(client) == ["Hello!"]
    assert seen == ["entered", "left"]
    assert ThreadContext.for_test("hi", resources={"greeting": "Hi"}).resources == {"greeting": "Hi"}
    assert ThreadContext.for_test("hi").resources is None


AGENT = """
from jimsapi import *

class Agent:
    def __init__(self):
        self.log = []
    async def __aenter__(self):
        self.log.append("entered")
        return {"greeting": "Hello"}
    async def __aexit__(self, *_):
        self.log.append("left")
    async def answer(self, ctx):
        ctx.send_message(ctx.resources["greeting"] if ctx.resources else "nothing")

@hookimpl
def jimsapi_adapt_app(obj):
    return JimsApp(obj.answer, LIFESPAN) if isinstance(obj, Agent) else None
"""


async def test_an_adapted_app_that_is_a_context_manager_is_entered(site: Path) -> None:
    install(site, "acme-agent", AGENT.replace("LIFESPAN", "name='agent'"))
    import acme_agent  # type: ignore[import-not-found]

    agent = acme_agent.Agent()
    for _ in range(2):  # each start enters it
        async with TestClient(api(agent)) as client:
            assert agent.log == ["entered"]
            assert await chat(client) == ["Hello"]
        assert agent.log == ["entered", "left"]
        agent.log.clear()
    async with TestClient(api(lambda: agent)) as client:  # a factory
        assert await chat(client) == ["Hello"]
    assert agent.log == ["entered", "left"]


async def test_the_lifespan_of_an_adapter_decides_instead(site: Path) -> None:
    code = "from contextlib import nullcontext\n" + AGENT.replace("LIFESPAN", "lifespan=nullcontext")
    install(site, "acme-agent", code)
    import acme_agent

    agent = acme_agent.Agent()
    async with TestClient(api(agent)) as client:
        assert await chat(client) == ["nothing"]
    assert agent.log == []


async def test_an_object_that_is_a_pipeline_and_a_context_manager_is_entered() -> None:
    class Model:
        opened = False

        async def __aenter__(self) -> None:
            self.opened = True

        async def __aexit__(self, *_: object) -> None:
            self.opened = False

        async def __call__(self, ctx: ThreadContext) -> None:
            ctx.send_message(f"open: {self.opened}")

    model = Model()
    async with TestClient(api(model)) as client:
        assert await chat(client) == ["open: True"]
    assert not model.opened


async def test_a_lifespan_that_fails_stops_the_start_with_its_line() -> None:
    class NoModel:
        async def __aenter__(self) -> None:
            raise ConnectionError("no model")

        async def __aexit__(self, *_: object) -> None:
            raise AssertionError("it was not entered")

    with pytest.raises(
        StartError, match=rf"the app's lifespan failed: ConnectionError: no model \(at {__file__}:\d+\)"
    ):
        async with api(JimsApp(echo, lifespan=NoModel)).lifespan():
            pass


async def test_a_lifespan_that_exits_before_it_is_entered_stops_the_start_with_its_line() -> None:
    def leave() -> AbstractAsyncContextManager[None]:
        raise SystemExit(0)

    with pytest.raises(StartError, match=rf"the app's lifespan failed: SystemExit: 0 \(at {__file__}:\d+\)"):
        async with api(JimsApp(echo, lifespan=leave)).lifespan():
            pass


async def test_a_wrapped_store_still_notifies_the_service_of_turns(site: Path) -> None:
    code = """
    from jimsapi import *

    class Traced:
        def __init__(self, store):
            self._store = store
        def __getattr__(self, name):
            return getattr(self._store, name)

    @hookimpl
    def jimsapi_store_wrapper():
        return Traced
    """
    install(site, "a-wrapper", code)
    served = api()
    async with TestClient(served) as client:
        assert await chat(client) == ["You said: hi"]
        assert served.composition is not None
        assert type(served.service.store).__name__ == "Traced"  # type: ignore[union-attr]
        assert served.composition.store.value.on_turn is not None


async def test_an_equal_observer_of_the_host_app_does_not_hide_an_error(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = """
    from jimsapi import *

    class Bad:
        def on_request(self, record):
            raise LookupError("no backend")

    BAD = Bad()

    @hookimpl
    def jimsapi_observer():
        return BAD
    """
    install(site, "a-observer", code)
    import a_observer  # type: ignore[import-not-found]

    served = create_api(echo, store="memory:", api_key="k")
    async with TestClient(served) as client:
        served.on_request.append(a_observer.BAD.on_request)
        assert await chat(client) == ["You said: hi"]
    assert caplog.text.count("LookupError: no backend") == 2


async def test_a_shared_object_is_entered_once_for_all_hooks_that_return_it(site: Path) -> None:
    install(
        site,
        "acme-ledger",
        """
        from jimsapi import *

        class Ledger:
            name = "ledger"
            calls = []
            def __init__(self, settings): pass
            async def __aenter__(self): self.calls.append("enter")
            async def __aexit__(self, *error): self.calls.append("leave")
            def on_run(self, record): self.calls.append("run")
            async def deliver(self, events): pass

        @hookimpl
        def jimsapi_observer(settings):
            return settings.shared(Ledger)

        @hookimpl
        def jimsapi_event_sink(settings):
            return settings.shared(Ledger)
        """,
    )
    async with TestClient(api()) as client:
        await chat(client)
    import acme_ledger  # type: ignore[import-not-found]

    assert acme_ledger.Ledger.calls == ["enter", "run", "leave"]


async def test_a_lambda_cannot_make_a_shared_object(site: Path) -> None:
    install(
        site,
        "acme-ledger",
        """
        from jimsapi import *

        @hookimpl
        def jimsapi_observer(settings):
            return settings.shared(lambda settings: None)
        """,
    )
    with pytest.raises(PluginError, match="needs a class or a function of a module"):
        async with api().lifespan():
            pass
