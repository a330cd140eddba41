"""What `--app` may name, and the one line that says why it cannot be served."""

from pathlib import Path
from typing import Any

import pytest

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.errors import StartError
from tests.command import refusal, run_command

pytestmark = pytest.mark.anyio

BOT = """
from jimsapi import JimsApp

async def app(ctx):
    ctx.send_message("the pipeline")

jims_app = JimsApp(app, name="named")

def factory():
    return jims_app

async def async_factory():
    return jims_app

def factory_of_factory():
    return async_factory

async def factory_with_default(settings=None):
    return jims_app

def logged(pipeline):
    async def wrapper(*args, **kwargs):
        return await pipeline(*args, **kwargs)
    return wrapper

decorated = logged(app)

class Callable:
    async def __call__(self, ctx):
        ctx.send_message("an object")

instance = Callable()

class Holder:
    async def answer(self, ctx):
        ctx.send_message("a method")

holder = Holder()
number = 7
nothing = None
ROOT = {"a": 1}

def needs_argument(ctx):
    ctx.send_message("a plain function")

plain = JimsApp(needs_argument)

def raising_factory():
    raise LookupError("no\\nmodel")

def exiting_factory():
    raise SystemExit(3)

def endless():
    return endless
"""


@pytest.fixture
def bot(site: Path) -> Path:
    (site / "bot.py").write_text(BOT)
    (site / "waiting.py").write_text("from bot import async_factory\ncoroutine = async_factory()\n")
    package = site / "pack" / "age"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from bot import app\n")
    (site / "needy.py").write_text("import no_such_package\n")
    (site / "broken.py").write_text("raise RuntimeError('one\\ntwo')\n")
    (site / "typo.py").write_text("def app(:\n")
    (site / "exits.py").write_text("import sys\nsys.exit('usage: exits FILE')\n")
    return site


async def answer(reference: Any) -> str:
    async with TestClient(create_api(reference, store="memory:")) as client:
        body = {"contact_id": "ann", "message": "hi"}
        [text] = (await client.post("/api/v1/chat", json=body)).json()["assistant_messages"]
        return str(text)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("bot", "the pipeline"),
        ("bot:", "the pipeline"),
        ("bot:app", "the pipeline"),
        ("bot:jims_app", "the pipeline"),
        ("bot:factory", "the pipeline"),
        ("bot:async_factory", "the pipeline"),
        ("bot:factory_of_factory", "the pipeline"),
        ("bot:factory_with_default", "the pipeline"),
        ("bot:decorated", "the pipeline"),
        ("waiting:coroutine", "the pipeline"),
        ("bot:instance", "an object"),
        ("bot:Callable", "an object"),
        ("bot:holder.answer", "a method"),
        ("bot:plain", "a plain function"),
        ("pack.age:app", "the pipeline"),
        ("pack.age", "the pipeline"),
    ],
)
async def test_what_can_be_served(bot: Path, reference: str, said: str) -> None:
    assert await answer(reference) == said


async def test_create_api_takes_the_objects_themselves(bot: Path) -> None:
    import bot as module  # type: ignore[import-not-found] # written by the fixture

    for app in (module.app, module.jims_app, module.factory, module.async_factory, module.async_factory()):
        assert await answer(app) == "the pipeline"


FAULTS = [
    ("nowhere", "--app nowhere: there is no module nowhere in "),
    ("pack.nowhere", "--app pack.nowhere: there is no module pack.nowhere in "),
    ("bot:nowhere", "--app bot:nowhere: bot has no nowhere"),
    ("bot:app.nowhere", "bot has no app.nowhere"),
    ("needy", "--app needy: needy needs no_such_package, which is not installed"),
    ("broken", "--app broken: importing broken failed: RuntimeError: one two"),
    ("typo", "--app typo: importing typo failed: SyntaxError"),
    ("exits", "--app exits: importing exits failed: SystemExit: usage: exits FILE"),
    ("bot:number", "--app bot:number is an int: it must be a JimsApp, an async pipeline"),
    ("bot:ROOT", "--app bot:ROOT is a dict: it must be"),
    ("bot:nothing", "bot:nothing is None"),
    ("bot:needs_argument", "a plain `def` pipeline is served as JimsApp(pipeline)"),
    ("bot:raising_factory", "making the app failed: LookupError: no model"),
    ("bot:exiting_factory", "making the app failed: SystemExit: 3"),
    ("bot:endless", "it must be a JimsApp"),
    ("bot:JimsApp", "making the app failed: TypeError"),
    ("bot.py", "there is no module bot.py"),
    ("./bot.py:app", "give module:attribute, for example bot:app"),
    ("bot:app:x", "give module:attribute"),
    (":app", "give module:attribute"),
]


@pytest.mark.parametrize(("reference", "message"), FAULTS)
async def test_what_cannot_be_served_is_one_line_that_says_why(bot: Path, reference: str, message: str) -> None:
    with pytest.raises(StartError) as refused:
        async with create_api(reference, store="memory:").lifespan():
            pass
    line = str(refused.value)
    assert message in line
    assert "\n" not in line


async def test_a_current_folder_that_was_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StartError, match="--app bot: the current folder was removed"):
        async with create_api("bot", store="memory:").lifespan():
            pass


@pytest.mark.parametrize(
    ("command", "reference"),
    [([], name) for name in ("nowhere", "bot:nowhere", "needy", "broken", "exits", "bot:number")]
    + [(["check"], "nowhere"), (["check"], "exits"), (["openapi"], "broken")],
)
def test_a_wrong_app_is_one_line_and_exit_1(bot: Path, reference: str, command: list[str]) -> None:
    given = [*command, "--app", reference, "--store", "memory:", "--port", "0", "--metrics-port", "0"]
    line = refusal(run_command(*given, cwd=bot))
    assert dict(FAULTS)[reference] in line
