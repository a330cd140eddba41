"""A deprecated hook is called until it is removed, its use is logged once at start, and a plugin's tests can see it."""

from pathlib import Path
from typing import Any

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins import hooks
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.hooks import Build, Deprecation, builds, deprecated, hookspec
from jimsapi.testing import deprecated_hooks
from tests.plugins.distributions import install

pytestmark = pytest.mark.anyio

OLD = """
from jimsapi import *

@hookimpl(optionalhook=True)
def jimsapi_scribe():
    return Scribe("old")

class Scribe:
    lines = []
    def __init__(self, name):
        self.name = name
    def on_run(self, record):
        self.lines.append(self.name)
"""
NEW = """
@hookimpl
def jimsapi_observer():
    return Scribe("new")
"""


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message("hi")


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of jimsapi that has the hook `jimsapi_scribe` still, and marks it as deprecated."""
    monkeypatch.setattr(hooks, "DEPRECATED", {})
    monkeypatch.setitem(hooks.BUILDS, "jimsapi_scribe", Build())

    @deprecated(Deprecation(since="0.2", removal="0.3", instead="jimsapi_observer"))
    @builds(Build())
    def jimsapi_scribe() -> Any:
        """Build a scribe."""

    monkeypatch.setattr(hooks, "jimsapi_scribe", jimsapi_scribe, raising=False)


def uses(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "deprecated" in record.getMessage()]


async def test_each_use_of_a_deprecated_hook_is_logged_once_at_start(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "acme-scribe", OLD)
    async with TestClient(create_api(echo, store="memory:", api_key="k")) as client:
        for _ in range(2):
            await client.get("/healthz")
    [use] = uses(caplog)
    assert use == (
        "plugin acme_scribe (acme_scribe, distribution acme-scribe 1.0) implements jimsapi_scribe "
        f"(at {site}/acme_scribe.py:4), which is deprecated since jimsapi 0.2 and will be removed in 0.3; "
        "use jimsapi_observer instead"
    )


async def test_a_deprecated_hook_is_still_called(site: Path) -> None:
    install(site, "acme-scribe", OLD)
    async with TestClient(served := create_api(echo, store="memory:", api_key="k")):
        assert served.composition is not None
        [built] = served.composition.built["jimsapi_scribe"]
        assert built.value.name == "old"


async def test_a_plugin_that_implements_the_replacement_too_serves_both_versions(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "acme-scribe", OLD + NEW)
    async with TestClient(served := create_api(echo, store="memory:", api_key="k")):
        assert served.composition is not None
        assert served.composition.built["jimsapi_scribe"] == ()
        assert "new" in [built.name for built in served.composition.built["jimsapi_observer"]]
    assert uses(caplog) == []
    assert deprecated_hooks("acme-scribe") == []


async def test_a_version_without_the_hook_ignores_it_in_a_plugin_that_marks_it_as_optional(
    site: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(hooks, "jimsapi_scribe")
    monkeypatch.delitem(hooks.BUILDS, "jimsapi_scribe")
    monkeypatch.setattr(hooks, "DEPRECATED", {})
    install(site, "acme-scribe", OLD + NEW)
    async with TestClient(create_api(echo, store="memory:", api_key="k")):
        pass
    assert uses(caplog) == []


def test_a_plugin_s_tests_show_its_use_of_deprecated_hooks(site: Path) -> None:
    install(site, "acme-scribe", OLD)
    install(site, "acme-other", OLD)
    [use] = deprecated_hooks("acme-scribe")
    assert use.startswith("plugin acme_scribe")
    assert "use jimsapi_observer instead" in use


def test_the_kit_refuses_a_plugin_that_is_not_installed_or_cannot_be_loaded(site: Path) -> None:
    with pytest.raises(StartError, match="acme-scribe, which is not installed"):
        deprecated_hooks("acme-scribe")
    install(site, "acme-scribe", "1 / 0")
    with pytest.raises(StartError, match="ZeroDivisionError"):
        deprecated_hooks("acme-scribe")


def test_the_mark_keeps_the_specification_of_the_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    @deprecated(Deprecation(since="0.2", removal="0.3", instead="a sink"))
    @hookspec
    def jimsapi_diary(url: str) -> None:
        """Keep a diary."""

    assert jimsapi_diary.jimsapi_spec is not None  # type: ignore[attr-defined] # pluggy's mark
    assert hooks.DEPRECATED["jimsapi_diary"].instead == "a sink"
