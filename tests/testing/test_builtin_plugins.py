"""The plugins that come with jimsapi keep the contracts that others' plugins have to keep."""

import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jimsapi import Inbound
from jimsapi.testing import (
    AppAdapterContract,
    AppLoaderContract,
    AuthProviderContract,
    CommandsContract,
    DoesNotApply,
    EventSinkContract,
    MetricsContract,
    ObserverContract,
    ThreadResolverContract,
)
from jimsapi.testing.contract import repeat
from jimsapi.threads.event import Event

NOTHING: Mapping[str, Any] = {}
TWO_KEYS = {"api_key": ["sesame-of-today", "sesame-of-yesterday"]}
TODAY = {"key": {"authorization": "Bearer sesame-of-today"}}
YESTERDAY = {"key": {"authorization": "bearer sesame-of-yesterday"}}

BOT = """
from types import SimpleNamespace

async def app(ctx):
    ctx.send_message("Hello!")

def make():
    return app

shelf = SimpleNamespace(app=app)
nothing = None
"""

NAMED = {f"key:{name}": {"authorization": f"Bearer jims_key-of-{name}"} for name in ("ann", "ben")}


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class TestBearerKey(AuthProviderContract):
    distribution = "jimsapi"
    plugin = "key"
    settings = TWO_KEYS
    secrets = ("sesame-of-today", "sesame-of-yesterday")
    good = TODAY
    foreign = ({"authorization": "Basic c2VzYW1l"}, {"x-api-key": "sesame-of-today"}, {"authorization": "Bearersesame"})
    malformed = ({"authorization": "Bearer"}, {"authorization": "bearer  "}, {"authorization": "Bearer a b c"})
    wrong = ({"authorization": "Bearer simsim"}, {"authorization": "Bearer SESAME-OF-TODAY"})
    expired = DoesNotApply("a key given by option has no date")
    denied = DoesNotApply("who has a key may enter")
    half_configured = DoesNotApply("a key is all there is")
    outage = DoesNotApply("it asks nobody")


class TestBearerKeyOfYesterday(TestBearerKey):
    good = YESTERDAY


class TestNamedKeys(AuthProviderContract):
    distribution = "jimsapi"
    plugin = "key"
    secrets = ("jims_key-of-ann", "jims_key-of-ben")
    good = NAMED
    foreign = ({"authorization": "Basic c2VzYW1l"}, {"x-api-key": "jims_key-of-ann"})
    malformed = ({"authorization": "Bearer"}, {"authorization": "Bearer jims_key-of-ann jims_key-of-ben"})
    wrong = ({"authorization": "Bearer jims_key-of-eve"}, {"authorization": f"Bearer {digest('jims_key-of-ann')}"})
    expired = ({"authorization": "Bearer jims_key-of-zoe"},)
    denied = DoesNotApply("who has a key may enter")
    outage = DoesNotApply("a file that went away leaves the keys that were read")

    @pytest.fixture(autouse=True)
    def write_keys(self, tmp_path: Path) -> None:
        self.file = tmp_path / "keys.json"
        limits: Mapping[str, Mapping[str, Any]] = {
            "ann": {"contact_id": "ann", "scopes": ["chat"]},
            "ben": {},
            "zoe": {"expires": "2020-01-02T00:00:00Z"},
        }
        keys = [
            {"name": name, "sha256": digest(f"jims_key-of-{name}"), "created": "2020-01-01T00:00:00Z", **more}
            for name, more in limits.items()
        ]
        self.file.write_text(json.dumps({"version": 1, "keys": keys}), encoding="utf-8")
        self.file.with_name("empty").write_text('{"version": 1, "keys": []}', encoding="utf-8")

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"keys_file": self.file}

    @property
    def half_configured(self) -> Sequence[Mapping[str, Any]]:
        return [{"keys_file": self.file.with_name("missing")}, {"keys_file": self.file.with_name("empty")}]


class TestLogSink(EventSinkContract):
    distribution = "jimsapi"
    settings = NOTHING
    outage = DoesNotApply("where logs go is not its business")
    unconfigured = DoesNotApply("it is there whenever debug logs are")

    @pytest.fixture(autouse=True)
    def debug_logs(self, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        with caplog.at_level(logging.DEBUG, "jimsapi.events"):
            self._caplog = caplog
            yield

    async def arrived(self) -> Sequence[str]:
        records = [record for record in self._caplog.records if record.name == "jimsapi.events"]
        return [record.getMessage().rpartition(" ")[2] for record in records]

    def mark_of(self, event: Event) -> str:
        return str(event.event_id)


class TestDefaultResolver(ThreadResolverContract):
    distribution = "jimsapi"
    settings = NOTHING
    unconfigured = DoesNotApply("it is always there")
    claimed = (Inbound(contact_id="ann", message="hi"),)
    left = DoesNotApply("it is asked last")

    async def test_a_thread_that_was_named_is_the_one(self) -> None:
        named = uuid4()
        async with self.opened() as resolver:
            [selector] = await resolver.resolve(Inbound(contact_id="ann", message="hi", thread_id=named))
        assert selector.thread_id == named


class TestMetricsObserver(ObserverContract):
    distribution = "jimsapi"
    plugin = "prometheus"
    settings = NOTHING
    unconfigured = DoesNotApply("it is always there")


class TestMetrics(MetricsContract):
    distribution = "jimsapi"
    plugin = "prometheus"
    prefix = "jims_"
    settings = NOTHING
    unconfigured = DoesNotApply("they are always there")


class TestModules(AppLoaderContract):
    distribution = "jimsapi"
    plugin = "app-loader"
    references = ("bot", "bot:app", "bot:shelf.app", "bot:make")
    left = DoesNotApply("it is asked last")
    invalid = ("no_such_module:app", "bot:no_such_app", "bot:nothing", "not a name:app", "bot.py", "broken")
    answers = ("Hello!",)

    @pytest.fixture(autouse=True)
    def write_modules(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        (tmp_path / "bot.py").write_text(BOT, encoding="utf-8")
        (tmp_path / "broken.py").write_text("1 / 0", encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        yield
        sys.modules.pop("bot", None)


class TestPipelines(AppAdapterContract):
    distribution = "jimsapi"
    plugin = "app-loader"
    apps = (repeat,)
    left = (lambda: repeat, None, 7, "bot:app", [], object(), object)
    answers = ("You said: hi",)


class TestKeysCommand(CommandsContract):
    distribution = "jimsapi"
    plugin = "key"
    commands = ("keys",)

    @pytest.fixture(autouse=True)
    def choose_file(self, tmp_path: Path) -> None:
        self.file = str(tmp_path / "keys.json")

    @property
    def calls(self) -> Sequence[Sequence[str]]:
        file = ("--keys-file", self.file)
        return [("keys", "new", "ann", *file), ("keys", "list", *file), ("keys", "revoke", "ann", *file)]
