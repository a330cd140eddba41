"""A stand-in for Authentik, which answers `check_access` and `users/me` as Authentik's source does, on a real socket.

    with FakeAuthentik() as authentik:
        authentik.give("token-of-ann", username="ann")
        authentik.give("token-of-bob", allowed=False)
        api = create_api(bot, **authentik.settings)     # or: jimsapi *authentik.flags
        ...
        assert authentik.calls == 1

It runs in a thread with a loop of its own, so that it serves async tests, other processes and benchmarks alike. A token
that nobody was given is answered as an expired one is. Nothing here waits unless `hold()` says so.
"""

import asyncio
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme
import uvicorn

from jimsapi.asgi import App, JSONResponse, Request, Response

CHECK_ACCESS = "/api/v3/core/applications/{slug}/check_access/"
ME = "/api/v3/core/users/me/"
HOST = "127.0.0.1"

WAIT = 30.0
"""Seconds after which what a test waits for will not come any more."""


@dataclass(frozen=True)
class Holder:
    """Whose a token is: whether they may use the application, and the fields of their user."""

    allowed: bool
    user: Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    path: str
    headers: list[tuple[str, str]]
    port: int

    @property
    def token(self) -> str:
        """The part of `Authorization` after the scheme."""
        return dict(self.headers).get("authorization", "").partition(" ")[2]


class FakeAuthentik:
    """Authentik with one application.

    `slug` is the application's. `prefix` is a path under which all of it is served. `tls` may be off where a benchmark
    is to measure without it.

    To be changed while it serves: `bindings`, without which every visitor may use the application, anonymous ones too;
    `starting_up`, whether it is not there yet. `seen` are the requests that arrived.
    """

    def __init__(self, slug: str = "jims", *, prefix: str = "", tls: bool = True) -> None:
        self.slug = slug
        self._prefix = prefix
        self._tls = tls
        self._open = threading.Event()
        self._arrived = threading.Condition()
        self._folder = tempfile.TemporaryDirectory()
        self.reset()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    def reset(self) -> None:
        """Forget all tokens and requests, and answer at once, as a new one does."""
        self.bindings = True
        self.starting_up = False
        self.seen: list[Seen] = []
        self._holders: dict[str, Holder] = {}
        self._open.set()

    def give(self, token: str, *, allowed: bool = True, **user: Any) -> None:
        """Give a token to somebody, in place of who had it; `user` are fields of theirs, of which the others are made
        up."""
        self._holders[token] = Holder(allowed, user)

    @property
    def url(self) -> str:
        """Where it is, for `--authentik-url`."""
        return f"http{'s' if self._tls else ''}://{HOST}:{self._port}{self._prefix}"

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that signed its own."""
        return Path(self._folder.name) / "ca.pem"

    @property
    def settings(self) -> dict[str, Any]:
        """Keywords of `create_api` that point to it."""
        settings: dict[str, Any] = {"authentik_url": self.url, "authentik_app_slug": self.slug}
        return settings | ({"authentik_ca_file": self.ca_file} if self._tls else {})

    @property
    def flags(self) -> list[str]:
        """The same for the command."""
        return [part for key, value in self.settings.items() for part in ("--" + key.replace("_", "-"), str(value))]

    @property
    def calls(self) -> int:
        """The number of requests for access."""
        return sum(one.path.endswith("/check_access/") for one in list(self.seen))

    @property
    def lookups(self) -> int:
        """The number of requests for the user of a token."""
        return sum(one.path.endswith(ME) for one in list(self.seen))

    @property
    def calls_by_token(self) -> Counter[str]:
        """The number of requests for access, by token."""
        return Counter(one.token for one in list(self.seen) if one.path.endswith("/check_access/"))

    @property
    def connections(self) -> int:
        """On how many connections requests came."""
        return len({one.port for one in list(self.seen)})

    def hold(self) -> None:
        """Let requests wait, from their arrival on, until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Answer those that wait, and the others at once."""
        self._open.set()

    async def arrived(self, count: int) -> None:
        """Wait until `count` requests have arrived in all. Raises `TimeoutError` if they do not come."""
        await asyncio.to_thread(self._wait_for, count)

    def __enter__(self) -> Self:
        config = uvicorn.Config(self._app(), host=HOST, port=0, log_config=None, timeout_graceful_shutdown=1)
        if self._tls:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.ca_file)
            certificate = Path(self._folder.name) / "server.pem"
            authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(certificate)
            config.ssl_certfile = certificate
        self._server = uvicorn.Server(config)
        listening = config.bind_socket()
        self._port = listening.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, name="fake Authentik")
        self._thread.start()
        until = time.monotonic() + WAIT
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise RuntimeError("the fake Authentik did not start")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(WAIT)
        self._folder.cleanup()

    def _wait_for(self, count: int) -> None:
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.seen) >= count, WAIT):
                raise TimeoutError(f"{len(self.seen)} of {count} requests arrived")

    def _app(self) -> App:
        app = App()

        @app.get(self._prefix + CHECK_ACCESS, public=True)
        async def check_access(request: Request) -> Response:
            return await self._arrive(request) or self._check_access(request)

        @app.get(self._prefix + "/-/health/ready/", public=True)
        async def ready(request: Request) -> Response:
            return await self._arrive(request) or Response(status=204)

        @app.get(self._prefix + ME, public=True)
        async def me(request: Request) -> Response:
            return await self._arrive(request) or self._me(request)

        return app

    async def _arrive(self, request: Request) -> Response | None:
        """Note a request and let it wait; gives the answer of an Authentik that starts, if it does."""
        assert request.client is not None
        with self._arrived:
            self.seen.append(Seen(request.path, list(request.headers), request.client[1]))
            self._arrived.notify_all()
        while not self._open.is_set():
            await asyncio.sleep(0.005)
        return Response("authentik starting", 502) if self.starting_up else None

    def _holder(self, request: Request) -> Holder | None:
        """The user of the request's token; None if the token is rejected. Without a token, it is an anonymous one."""
        token = (request.headers.get("authorization") or "").partition(" ")[2]
        return self._holders.get(token) if token.strip() else Holder(allowed=False, user={})

    def _check_access(self, request: Request) -> Response:
        holder = self._holder(request)
        if holder is None:
            return _refused()
        if request.path_params["slug"] != self.slug:
            return _answer({"detail": "No Application matches the given query."}, 404)
        return _answer({"passing": not self.bindings or holder.allowed, "messages": [], "log_messages": []})

    def _me(self, request: Request) -> Response:
        holder = self._holder(request)
        if holder is None:
            return _refused()
        made_up = {
            "pk": 17,
            "username": "somebody",
            "name": "Somebody",
            "is_active": True,
            "is_superuser": False,
            "groups": [],
            "email": "somebody@example.org",
            "avatar": "",
            "uid": "5d1b0c",
            "settings": {},
            "type": "internal",
        }
        return _answer({"user": {**made_up, **holder.user}})


def _answer(content: Mapping[str, Any], status: int = 200) -> Response:
    """An answer, with the session cookie that Authentik sets."""
    return JSONResponse(dict(content), status, {"set-cookie": "authentik_session=of-whoever-asked-last; Path=/"})


def _refused() -> Response:
    return _answer({"detail": "Token invalid/expired"}, 403)
