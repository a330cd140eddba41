"""The pytest plugin: installed with the wheel, silent to who does not use it, and its fixtures work."""

from pathlib import Path

import pytest

from tests.clean_venv import CleanVenv, our_wheel

UNCONCERNED = """
import sys

def test_nothing_of_jimsapi_was_imported(request):
    assert request.config.pluginmanager.has_plugin("jimsapi")
    assert [name for name in sys.modules if name.startswith("jimsapi")] == ["jimsapi_pytest"]
"""

CONCERNED = """
import os
import pytest
from jimsapi.builtin.bearer_key import jimsapi_auth_provider

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_a_client_talks_to_a_server_with_these_options(jimsapi_client):
    for key, status in (("k", 200), ("of-the-developer", 401)):
        async with jimsapi_client(api_key="k") as client:
            client.headers["authorization"] = f"Bearer {key}"
            answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["assistant_messages"] == ["You said: hi"]

@pytest.mark.anyio
async def test_the_app_may_be_another(jimsapi_client):
    async def answer(ctx):
        ctx.send_message("no")

    async with jimsapi_client(answer) as client:
        said = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    assert said.json()["assistant_messages"] == ["no"]

def test_settings_are_those_given_and_no_variables(jimsapi_settings):
    assert jimsapi_auth_provider(jimsapi_settings()) is None
    assert jimsapi_auth_provider(jimsapi_settings(api_key="k")) is not None

def test_the_environment_is_as_it_was():
    assert os.environ["JIMS_API_KEY"] == "of-the-developer"
"""

SHOWING = """
from jimsapi.testing import EventSinkContract, DoesNotApply

class TestLost(EventSinkContract):
    distribution = "jimsapi"
    settings = {}
    unconfigured = outage = DoesNotApply("this is about what a failure shows")

    async def arrived(self):
        return ["lost"]

    def build(self, given):
        class Sink:
            name = "lost"
            async def deliver(self, events):
                pass
        return [Sink()]
"""


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> CleanVenv:
    made = CleanVenv(tmp_path_factory.mktemp("plugin") / "venv", "pytest")
    made.install(our_wheel())
    return made


def run(venv: CleanVenv, folder: Path, test: str, *options: str) -> str:
    (folder / "test_it.py").write_text(test, encoding="utf-8")
    env = {"JIMS_API_KEY": "of-the-developer"}
    ran = venv.run("pytest", "-q", "-p", "no:cacheprovider", *options, cwd=folder, env=env)
    return ran.stdout + ran.stderr


def test_who_does_not_use_it_does_not_notice_it(venv: CleanVenv, tmp_path: Path) -> None:
    assert "1 passed" in run(venv, tmp_path, UNCONCERNED)


def test_its_fixtures_build_servers_and_settings_from_options(venv: CleanVenv, tmp_path: Path) -> None:
    said = run(venv, tmp_path, CONCERNED, "-W", "error")
    assert "4 passed" in said, said


def test_a_contract_s_failure_shows_what_it_compared(venv: CleanVenv, tmp_path: Path) -> None:
    said = run(venv, tmp_path, SHOWING, "-k", "whole_and_in_order")
    assert "assert ['lost'] ==" in said, said


def test_contracts_but_that_of_stores_need_no_hypothesis(venv: CleanVenv, tmp_path: Path) -> None:
    test = "from jimsapi.testing import AuthProviderContract, EventSinkContract, ThreadResolverContract\n"
    assert "no tests ran" in run(venv, tmp_path, test)
    assert "hypothesis" in run(venv, tmp_path, "from jimsapi.testing import ThreadStoreContract\n")
    assert "cannot import name 'NoSuchContract'" in run(venv, tmp_path, "from jimsapi.testing import NoSuchContract\n")
