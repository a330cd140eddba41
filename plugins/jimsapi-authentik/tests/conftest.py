"""What the suites share. The modules beside this one are loaded here, by their path, and imported by name then."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.modules import load

for _name in ("fake_authentik", "raw_server", "calling"):
    load(Path(__file__).with_name(f"{_name}.py"))

from fake_authentik import FakeAuthentik  # noqa: E402 # not before it is loaded


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
