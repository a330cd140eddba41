"""A plugin that loads and adapts apps, in many versions: one keeps the contracts, and some each break one thing.

The tests install this module as the distribution `acme-script`; the option `--script-version` chooses.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from jimsapi import JimsApp, Options, ThreadContext, hookimpl, option
from jimsapi.plugins import Settings


class ScriptOptions(Options, prefix="script"):
    version: str = option("Sound", help="The class that loads and adapts.")


class Script:
    """An app that always says the same."""

    def __init__(self, text: str) -> None:
        self.text = text


class Sound:
    def adapt(self, app: Any) -> Any:
        return self.app_of(app) if isinstance(app, Script) else None

    def load(self, reference: str) -> Any:
        if not reference.startswith("script:"):
            return None
        text = reference.removeprefix("script:")
        if not text:
            return self.refuse()
        return Script(text)

    def refuse(self) -> Any:
        raise ValueError("give the text to say")

    def app_of(self, script: Script) -> Any:
        return JimsApp(self.pipeline(script.text), name="script")

    def pipeline(self, text: str) -> Callable[[ThreadContext], Awaitable[None]]:
        async def say(ctx: ThreadContext) -> None:
            ctx.send_message(text)

        return say


class AdaptsNothing(Sound):
    def adapt(self, app: Any) -> Any:
        return None


class GivesAPipeline(Sound):
    def app_of(self, script: Script) -> Any:
        return self.pipeline(script.text)


class AdaptsEverything(Sound):
    def adapt(self, app: Any) -> Any:
        return self.app_of(Script("yes"))


class ComparesApps(Sound):
    def adapt(self, app: Any) -> Any:
        return None if app == "nothing" else super().adapt(app)


class LooksOnce(Sound):
    def adapt(self, app: Any) -> Any:
        Seen.first = Seen.first or app
        return super().adapt(app) if app is Seen.first else None


class Seen:
    first: Any = None
    starts = 0


class SaysItOnce(Sound):
    def pipeline(self, text: str) -> Callable[[ThreadContext], Awaitable[None]]:
        texts = [text]

        async def say(ctx: ThreadContext) -> None:
            ctx.send_message(texts.pop() if texts else "what?")

        return say


class RemembersTheContext(Sound):
    context: ThreadContext

    def pipeline(self, text: str) -> Callable[[ThreadContext], Awaitable[None]]:
        async def say(ctx: ThreadContext) -> None:
            self.context = ctx
            await asyncio.sleep(0)
            self.context.send_message(text)

        return say


class StartsOnce(Sound):
    def app_of(self, script: Script) -> Any:
        return JimsApp(self.pipeline(script.text), lifespan=self.life)

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        Seen.starts += 1
        assert Seen.starts == 1, "it runs already"
        yield


class LoadsNothing(Sound):
    def load(self, reference: str) -> Any:
        return None


class LoadsEverything(Sound):
    def load(self, reference: str) -> Any:
        return super().load(reference) or Script(reference)


class FailsOnInvalid(Sound):
    def refuse(self) -> Any:
        raise KeyError("text")


class GivesNoReason(Sound):
    def refuse(self) -> Any:
        raise ValueError


@hookimpl
def jimsapi_options() -> type[Options]:
    return ScriptOptions


def made(settings: Settings) -> Any:
    return globals()[settings.get(ScriptOptions).version]()


@hookimpl
def jimsapi_load_app(reference: str, settings: Settings) -> Any:
    return settings.shared(made).load(reference)


@hookimpl
def jimsapi_adapt_app(obj: Any, settings: Settings) -> Any:
    return settings.shared(made).adapt(obj)
