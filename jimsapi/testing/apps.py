"""The contracts of plugins that load or adapt apps, as tests."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pytest

from jimsapi.api.app import Api
from jimsapi.asgi.testing import TestClient
from jimsapi.builtin import builtin_plugins
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.manager import Implementation, PluginManager
from jimsapi.plugins.options import Settings
from jimsapi.runs.pipeline import JimsApp
from jimsapi.testing.contract import DoesNotApply, PluginContract, needs, repeat, resolved


class AppContract(PluginContract):
    """The base of both contracts: servers with apps that the plugin loads or adapts, and their answers."""

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Options, as for `create_api`, with which the plugin is configured. The default is none."""
        return {}

    message: str = "hi"
    """The message that the cases send to each app."""

    @cached_property
    def answers(self) -> Sequence[str]:
        """The texts with which each app answers `message`."""
        raise self.undeclared("answers", "the texts with which each app answers `message`")

    def apps_to_serve(self) -> Sequence[Any]:
        """Return what the cases pass to `create_api`: app objects or references."""
        raise NotImplementedError

    def api(self, given: Mapping[str, Any] | None = None, app: Any = None) -> Api:
        return super().api(given, self.apps_to_serve()[0] if app is None else app)

    def hooks(self) -> tuple[list[Implementation], Settings]:
        """Return the plugin's functions for the hook, and the settings that they get."""
        plugins = PluginManager(builtin_plugins())
        return self.implementations(plugins), resolved(plugins, self.settings)

    async def test_each_app_answers_the_message_as_declared(self) -> None:
        for app in self.apps_to_serve():
            async with TestClient(self.api(app=app)) as client:
                for contact_id in ("ann", "ben"):
                    assert await said(client, contact_id, self.message) == list(self.answers)

    async def test_contacts_that_write_at_once_get_their_own_answers(self) -> None:
        contacts = [f"contact {number}" for number in range(20)]
        for app in self.apps_to_serve():
            async with TestClient(self.api(app=app)) as client:
                answers = await asyncio.gather(*(said(client, contact_id, self.message) for contact_id in contacts))
            assert answers == [list(self.answers)] * len(contacts), "the answers of contacts are mixed up"


class AppAdapterContract(AppContract):
    """Derive a class from this one in a test module, and declare apps that the plugin adapts, and what they answer:

        class TestScript(AppAdapterContract):
            distribution = "jimsapi-script"
            apps = (Script({"hi": "Hello!"}),)
            message = "hi"
            answers = ("Hello!",)

    pytest then runs every case against the installed plugin.
    """

    hook = "jimsapi_adapt_app"

    @cached_property
    def apps(self) -> Sequence[Any]:
        """App objects that the plugin adapts."""
        raise self.undeclared("apps", "app objects that the plugin adapts")

    @cached_property
    def left(self) -> Sequence[Any]:
        """Objects that the plugin leaves to other plugins. The default is a pipeline and objects of no framework."""
        return (repeat, lambda: repeat, None, True, 7, "bot:app", b"", [], {}, object(), object, Strange())

    def apps_to_serve(self) -> Sequence[Any]:
        found: Sequence[Any] = self.examples("apps")
        return found

    def adapted(self, app: Any) -> list[Any]:
        """Return what the plugin's hook returns for an object, without None."""
        hooks, settings = self.hooks()
        return [found for found in (hook(obj=app, settings=settings) for hook in hooks) if found is not None]

    def test_it_adapts_its_apps(self) -> None:
        for number, app in enumerate(self.examples("apps")):
            found = self.adapted(app)
            assert len(found) == 1, f"apps[{number}] gave {len(found)} apps"
            assert isinstance(found[0], JimsApp), f"apps[{number}] gave a {type(found[0]).__name__}: return a JimsApp"

    def test_it_leaves_other_objects_to_other_plugins(self) -> None:
        for number, app in enumerate(self.examples("left")):
            assert self.adapted(app) == [], f"left[{number}], a {type(app).__name__}, was adapted"

    async def test_an_app_that_a_function_returns_is_adapted(self) -> None:
        for app in self.examples("apps"):

            def make(app: Any = app) -> Any:
                return app

            async with TestClient(self.api(app=make)) as client:
                assert await said(client, "ann", self.message) == list(self.answers)


class Strange:
    """An object that has every attribute, and cannot be called or compared."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Strange()

    def __eq__(self, other: object) -> bool:
        raise TypeError("this object cannot be compared")

    __hash__ = None  # type: ignore[assignment] # as that of a list


class AppLoaderContract(AppContract):
    """Derive a class from this one in a test module, and declare references that the plugin loads:

        class TestSay(AppLoaderContract):
            distribution = "jimsapi-say"
            references = ("say:hello",)
            answers = ("hello",)
            invalid = ("say:",)

    pytest then runs every case against the installed plugin.
    """

    hook = "jimsapi_load_app"

    @cached_property
    def references(self) -> Sequence[str]:
        """References, as of `--app`, that the plugin loads."""
        raise self.undeclared("references", "references, as of --app, that the plugin loads")

    @cached_property
    def left(self) -> Sequence[str] | DoesNotApply:
        """References that the plugin leaves to other plugins. The default is those of modules, and no references."""
        return ("bot", "bot:app", "package.bot:make.app", "", " ", ":", "Ümläut", "x" * 10_000)

    @cached_property
    def invalid(self) -> Sequence[str] | DoesNotApply:
        """References in the plugin's format that cannot be loaded."""
        raise self.undeclared("invalid", "references in its format that cannot be loaded, or DoesNotApply(why)")

    def apps_to_serve(self) -> Sequence[Any]:
        found: Sequence[str] = self.examples("references")
        return found

    def loaded(self, reference: str) -> list[Any]:
        """Return what the plugin's hook returns for a reference, without None."""
        hooks, settings = self.hooks()
        found = (hook(reference=reference, settings=settings) for hook in hooks)
        return [app for app in found if app is not None]

    def test_it_loads_its_references(self) -> None:
        for reference in self.examples("references"):
            assert len(self.loaded(reference)) == 1, f"{reference} was not loaded"

    @needs("left")
    def test_it_leaves_other_references_to_other_plugins(self) -> None:
        for reference in self.examples("left"):
            assert self.loaded(reference) == [], f"{reference[:100]!r} was loaded"

    @needs("invalid")
    async def test_the_operator_reads_why_a_reference_is_invalid(self) -> None:
        for reference in self.examples("invalid"):
            with pytest.raises(StartError) as refused:
                async with self.api(app=reference).lifespan():
                    pass
            message, begins = str(refused.value), f"--app {reference}: "
            assert message.startswith(begins), f"raise ValueError with the reason; the operator reads: {message}"
            assert message.removeprefix(begins).strip(), f"the error for {reference} has no reason"


async def said(client: TestClient, contact_id: str, message: str) -> list[str]:
    """Send a message to the API. Returns the texts of the answer."""
    answer = await client.post("/api/v1/chat", json={"contact_id": contact_id, "message": message})
    assert answer.status_code == 200, answer.text
    texts: list[str] = answer.json()["assistant_messages"]
    return texts
