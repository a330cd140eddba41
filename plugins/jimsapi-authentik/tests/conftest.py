"""What the suites share. The modules beside this one are loaded here, by their path, and imported by name then."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


def _load(name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


for _name in ("fake_authentik", "raw_server", "calling"):
    _load(_name)

from fake_authentik import FakeAuthentik  # noqa: E402 # not before it is loaded


@pytest.fixture
def anyio_backend() -> str:
    """The loop of async tests."""
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option and no proxy of the machine's."""
    for variable in list(os.environ):
        if variable.startswith("JIMS_") or variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)


@pytest.fixture(scope="session")
def one_authentik() -> Iterator[FakeAuthentik]:
    """The fake Authentik that all tests share: starting and stopping one takes 0.2 seconds."""
    with FakeAuthentik() as fake:
        yield fake


@pytest.fixture
def authentik(one_authentik: FakeAuthentik) -> FakeAuthentik:
    """A fake Authentik with two tokens: the user of `good` has access, the user of `other` has not."""
    one_authentik.reset()
    one_authentik.give("good")
    one_authentik.give("other", allowed=False)
    return one_authentik
