"""The pytest plugin: fixtures for the tests of plugins.

It stands beside the package because pytest loads it in every environment that has jimsapi: who does not ask for a
fixture pays for this file and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jimsapi.asgi.testing import TestClient
    from jimsapi.plugins.options import Settings


@pytest.fixture
def jimsapi_client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TestClient]:
    """Makes a client of a server with all installed plugins, from its options as `create_api` takes them:

        async def test_the_desk_is_locked(jimsapi_client):
            async with jimsapi_client(api_key="k") as client:
                answer = await client.get("/desk")
            assert answer.status_code == 401

    The server keeps threads in memory and repeats what it is told, unless `store` or `app` say otherwise. `JIMS_*`
    variables of the person who runs the tests do not count.
    """
    from jimsapi.api.app import create_api
    from jimsapi.asgi.testing import TestClient
    from jimsapi.testing.contract import remove_variables, repeat

    remove_variables(monkeypatch)

    def client(app: Any = repeat, **options: Any) -> TestClient:
        return TestClient(create_api(app, **{"store": "memory:", **options}))

    return client


@pytest.fixture
def jimsapi_settings() -> Callable[..., Settings]:
    """Makes the settings that a hook gets, from options by name: all installed plugins' options, and no variables.

    def test_without_a_file_there_is_no_sink(jimsapi_settings):
        assert jimsapi_event_sink(jimsapi_settings()) is None
    """
    from jimsapi.builtin import builtin_plugins
    from jimsapi.plugins.manager import PluginManager
    from jimsapi.testing.contract import resolved

    def settings(**options: Any) -> Settings:
        return resolved(PluginManager(builtin_plugins()), options)

    return settings
