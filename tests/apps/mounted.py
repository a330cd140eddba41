"""The API within other apps, and bare for other servers. Whoever mounts it enters its lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from jimsapi import create_api
from jimsapi.api.app import Api
from tests.apps.steered import app

api = create_api(app, store="memory:", api_key="the-key", drain_time=2)


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("home")


def starlette(mounted: Api, *, live: bool = True) -> Starlette:
    """A site with the API below /bot, alive with the site if `live`."""

    @asynccontextmanager
    async def lifespan(site: Starlette) -> AsyncIterator[None]:
        async with mounted.lifespan():
            yield

    return Starlette(routes=[Route("/", home), Mount("/bot", mounted)], lifespan=lifespan if live else None)


def fastapi(mounted: Api, *, live: bool = True) -> FastAPI:
    """The same with FastAPI."""

    @asynccontextmanager
    async def lifespan(site: FastAPI) -> AsyncIterator[None]:
        async with mounted.lifespan():
            yield

    site = FastAPI(lifespan=lifespan if live else None)
    site.get("/")(home)
    site.mount("/bot", mounted)
    return site
