"""Fixtures for tests of several plugins. The plugins' fakes are loaded by path: test folders are not packages."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PLUGINS = Path(__file__).resolve().parents[1]


def load(path: Path) -> ModuleType:
    """Import a file by its path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def anyio_backend() -> str:
    """The loop of async tests."""
    return "asyncio"


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
