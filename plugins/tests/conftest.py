"""Fixtures for tests of several plugins. The plugins' fakes are loaded by path: test folders are not packages."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.plugins.modules import load
from tests.plugins.talking import people

__all__ = ["authentik", "issuer", "people"]

PLUGINS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def authentik() -> Iterator[Any]:
    """A fake Authentik with two tokens: the user of `user` has access, the user of `denied` has not."""
    fake = load(PLUGINS / "jimsapi-authentik" / "tests" / "fake_authentik.py")
    with fake.FakeAuthentik() as server:
        server.give("user")
        server.give("denied", allowed=False)
        yield server


@pytest.fixture(scope="session")
def issuer() -> Iterator[Any]:
    """An OpenID Connect issuer."""
    fake = load(PLUGINS / "jimsapi-oidc" / "tests" / "fake_issuer.py")
    with fake.FakeIssuer() as server:
        yield server


@pytest.fixture
def sentry() -> Iterator[Any]:
    """A Sentry."""
    server = load(PLUGINS / "jimsapi-sentry" / "tests" / "fake_sentry.py").FakeSentry()
    yield server
    server.close()


@pytest.fixture
def collector() -> Iterator[Any]:
    """A collector of OpenTelemetry."""
    server = load(PLUGINS / "jimsapi-otel" / "tests" / "otlp_collector.py").Collector()
    yield server
    server.close()


@pytest.fixture(scope="session")
def combinations() -> ModuleType:
    """The table of admitted callers."""
    return load(Path(__file__).with_name("combinations.py"))
