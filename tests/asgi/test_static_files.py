"""Files of a folder: what is served, to whom it is new, and what never leaves the folder."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from jimsapi.asgi import App, Connection, HTTPError, Request, Response, Route
from jimsapi.asgi.files import CHUNK
from jimsapi.asgi.forms import read_form
from jimsapi.asgi.testing import TestClient

from .driver import Exchange, ask, http_scope

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * 3000  # 768,000 bytes, more than two chunks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to serve, and beside it a file that nobody may read."""
    root = tmp_path / "public"
    (root / "css").mkdir(parents=True)
    (root / "css" / "index.html").write_text("<p>styles</p>")
    (root / "css" / "site.css").write_text("p { color: red }")
    (root / "a b:é.txt").write_text("spaced")
    (root / "large.bin").write_bytes(LARGE)
    (root / "empty.txt").write_bytes(b"")
    (root / ".env").write_text("PASSWORD=hidden")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("hidden")
    (root / ".well-known").mkdir()
    (root / ".well-known" / "security.txt").write_text("Contact: x")
    (root / "inner.css").symlink_to("css/site.css")
    (root / "outer.txt").symlink_to("../secret.txt")
    (root / "beside.txt").symlink_to("../public-too/secret.txt")
    (root / "outer").symlink_to("..")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "public-too").mkdir()
    (tmp_path / "public-too" / "secret.txt").write_text("secret")
    return root


def serving(folder: Path, index: str | None = None) -> TestClient:
    app = App()
    app.static("/assets", folder, index=index, public=True)
    return TestClient(app)


async def test_a_file_is_sent_with_its_type_and_its_length(folder: Path) -> None:
    async with serving(folder) as client:
        answer = await client.get("/assets/css/site.css")
        assert (answer.status_code, answer.text) == (200, "p { color: red }")
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await client.get("/assets/a%20b%3A%C3%A9.txt")).text == "spaced"
        assert (await client.get("/assets/inner.css")).text == "p { color: red }"
        assert (await client.get("/assets/.well-known/security.txt")).text == "Contact: x"
        empty = await client.get("/assets/empty.txt")
        assert (empty.status_code, empty.content, empty.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("app.js", "text/javascript; charset=utf-8"),
        ("page.html", "text/html; charset=utf-8"),
        ("data.json", "application/json"),
        ("photo.WEBP", "image/webp"),
        ("font.woff2", "font/woff2"),
        ("archive.tar.gz", "application/gzip"),
        ("noidea", "application/octet-stream"),
        ("what.zzz", "application/octet-stream"),
    ],
)
async def test_the_type_follows_from_the_name(tmp_path: Path, name: str, content_type: str) -> None:
    (tmp_path / name).write_text("x")
    async with serving(tmp_path) as client:
        assert (await client.get(f"/assets/{name}")).headers["content-type"] == content_type


async def test_a_large_file_is_streamed_and_head_has_its_headers(folder: Path) -> None:
    assert len(LARGE) > 2 * CHUNK
    async with serving(folder) as client:
        async with client.stream("GET", "/assets/large.bin") as answer:
            parts = [part async for part in answer.aiter_raw()]
        head = await client.head("/assets/large.bin")
    assert b"".join(parts) == LARGE
    assert len(parts) == 3
    assert answer.headers["content-length"] == head.headers["content-length"] == str(len(LARGE))
    assert head.headers["etag"] == answer.headers["etag"]
    assert (head.status_code, head.content) == (200, b"")


async def test_a_client_that_leaves_in_the_middle_closes_the_file(folder: Path) -> None:
    async with serving(folder) as client:
        async with client.stream("GET", "/assets/large.bin") as answer:
            async for _ in answer.aiter_raw():
                assert open_files(folder) == ["large.bin"]
                break
        await client.head("/assets/large.bin")
        await client.get("/assets/css")
        await client.get("/assets/pipe")
        assert open_files(folder) == []


def open_files(folder: Path) -> list[str]:
    """The names of the files of a folder that this process has open."""
    opened: list[Path] = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # another thread has closed it meanwhile
            opened.append(entry.readlink())
    return sorted(path.name for path in opened if path.is_relative_to(folder.resolve()))


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "css/../../secret.txt",
        "%2e%2e/secret.txt",
        "%2e%2e%2fsecret.txt",
        "..%5csecret.txt",
        "css/..%2f..%2fsecret.txt",
        "../public-too/secret.txt",
        "outer.txt",
        "beside.txt",
        "outer/secret.txt",
        "loop",
        "pipe",
        ".env",
        ".git/config",
        "css/./site.css",
        "css//site.css",
        "css/site.css/",
        "css/site.css/x",
        "%00",
        "css/site.css%00.html",
        "",
        "css",
        "css/",
        "nothing",
        "x" * 5000,
        "/etc/passwd",
        "%2fetc%2fpasswd",
    ],
)
async def test_everything_else_is_not_found(folder: Path, path: str) -> None:
    """The path reaches the app as it is here; a client would resolve its dots first."""
    app = App()
    app.static("/assets", folder, public=True)
    target = f"/assets/{path}"
    scope = http_scope(path=unquote(target), raw_path=target.encode())
    exchange = await Exchange().run(app, scope)
    assert (exchange.status, exchange.body) == (404, b'{"detail":"Not Found"}')


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read every file, so its rights are dropped for a while."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


async def test_a_file_that_the_server_may_not_read_is_not_found() -> None:
    with TemporaryDirectory() as name:  # every user may enter the folder above it, unlike that of `tmp_path`
        folder = Path(name)
        folder.chmod(0o755)
        for file in ("open.css", "closed.css"):
            (folder / file).write_text("body {}")
        (folder / "closed.css").chmod(0)
        async with serving(folder) as client:
            with without_privileges():
                statuses = [(await client.get(f"/assets/{file}")).status_code for file in ("open.css", "closed.css")]
    assert statuses == [200, 404]


async def test_a_folder_shows_its_index_if_there_is_one_and_never_a_listing(folder: Path) -> None:
    async with serving(folder, index="index.html") as client:
        assert (await client.get("/assets/css/")).text == "<p>styles</p>"
        for path in ("/assets/css?v=1&w=%20", "/assets/css"):
            redirect = await client.get(path)
            assert redirect.status_code == 307
            assert redirect.headers["location"] == path.replace("/assets/css", "./css/")
        assert (await client.get("/assets/css", follow_redirects=True)).text == "<p>styles</p>"
        assert (await client.get("/assets/")).status_code == 404
        assert (await client.get("/assets/css/site.css/")).status_code == 404


async def test_a_client_that_has_the_file_gets_304_until_it_changes(folder: Path) -> None:
    file = folder / "css" / "site.css"
    async with serving(folder) as client:
        first = await client.get("/assets/css/site.css")
        tag, modified = first.headers["etag"], first.headers["last-modified"]
        for known in (
            {"if-none-match": tag},
            {"if-none-match": f'"x", W/{tag}'},
            {"if-none-match": "*"},
            {"if-modified-since": modified},
            {"if-none-match": tag, "if-modified-since": formatdate(0, usegmt=True)},
        ):
            answer = await client.get("/assets/css/site.css", headers=known)
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
            assert "content-length" not in answer.headers
        for stale in (
            {"if-none-match": '"x"'},
            {"if-modified-since": formatdate(0, usegmt=True)},
            {"if-modified-since": "yesterday"},
            {"if-none-match": '"x"', "if-modified-since": modified},
        ):
            assert (await client.get("/assets/css/site.css", headers=stale)).status_code == 200
        file.write_text("p { color: blue }")
        os.utime(file, (time.time() + 5, time.time() + 5))
        for known in ({"if-none-match": tag}, {"if-modified-since": modified}):
            assert (await client.get("/assets/css/site.css", headers=known)).text == "p { color: blue }"


async def test_a_request_for_another_version_gets_412(folder: Path) -> None:
    async with serving(folder) as client:
        first = await client.get("/assets/css/site.css")
        tag, modified = first.headers["etag"], first.headers["last-modified"]
        for present in (
            {"if-match": tag},
            {"if-match": f'"x", {tag}'},
            {"if-match": "*"},
            {"if-unmodified-since": modified},
            {"if-unmodified-since": "yesterday"},
            {"if-match": tag, "if-unmodified-since": formatdate(0, usegmt=True)},
        ):
            assert (await client.get("/assets/css/site.css", headers=present)).status_code == 200
        for other in (
            {"if-match": '"x"'},
            {"if-match": f"W/{tag}"},
            {"if-match": '"x"', "if-none-match": tag},
            {"if-match": '"x"', "range": "bytes=0-1"},
            {"if-unmodified-since": formatdate(0, usegmt=True)},
        ):
            assert (await client.get("/assets/css/site.css", headers=other)).status_code == 412


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=767990-", 767_990, 768_000),
        ("bytes=-10", 767_990, 768_000),
        ("bytes=-9999999", 0, 768_000),
        ("bytes=1-9999999", 1, 768_000),
    ],
)
async def test_a_range_of_bytes_is_sent_alone(folder: Path, wanted: str, begin: int, end: int) -> None:
    async with serving(folder) as client:
        answer = await client.get("/assets/large.bin", headers={"range": wanted})
    assert (answer.status_code, answer.content) == (206, LARGE[begin:end])
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/768000"
    assert answer.headers["content-length"] == str(end - begin)


@pytest.mark.parametrize("wanted", ["bytes=5-4", "bytes=-", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=0-1x"])
async def test_a_range_that_is_not_understood_is_ignored(folder: Path, wanted: str) -> None:
    async with serving(folder) as client:
        answer = await client.get("/assets/css/site.css", headers={"range": wanted})
        assert (answer.status_code, answer.text) == (200, "p { color: red }")


async def test_a_range_is_refused_after_the_end_and_ignored_if_the_file_has_changed(folder: Path) -> None:
    async with serving(folder) as client:
        for wanted in ("bytes=16-", "bytes=-0"):
            answer = await client.get("/assets/css/site.css", headers={"range": wanted})
            assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */16")
        tag = (await client.get("/assets/css/site.css")).headers["etag"]
        for condition, status in ((tag, 206), ('"other"', 200)):
            headers = {"range": "bytes=0-1", "if-range": condition}
            assert (await client.get("/assets/css/site.css", headers=headers)).status_code == status
        assert (await client.head("/assets/css/site.css", headers={"range": "bytes=0-1"})).status_code == 200


async def test_static_files_are_private_unless_they_are_declared_public(folder: Path) -> None:
    async def admit(request: Connection, route: Route) -> object:
        raise HTTPError(401)

    app = App(admit=admit)
    app.static("/assets/", folder)
    assert (await ask(app, "GET", "/assets/css/site.css")).status_code == 401


async def test_routes_beside_the_files_take_precedence(folder: Path) -> None:
    app = App()
    app.static("", folder, public=True)

    @app.get("/css/site.css", public=True)
    async def site(request: Request) -> Response:
        return Response("the route")

    async with TestClient(app) as client:
        assert (await client.get("/css/site.css")).text == "the route"
        assert (await client.get("/css/index.html")).text == "<p>styles</p>"


@pytest.mark.parametrize("name", ["missing", "public/css/site.css"])
def test_a_folder_that_is_not_there_stops_the_start(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="static files does not exist"):
        App().static("/assets", folder.parent / name)


@pytest.mark.parametrize("option", ["time_limit", "cancel_on_disconnect", "worker_thread", "max_body", "typo"])
def test_an_option_that_static_files_do_not_have_is_named(folder: Path, option: str) -> None:
    with pytest.raises(TypeError, match=rf"static\(\) got an unexpected keyword argument '{option}'"):
        App().static("/assets", folder, **{option: 1})  # type: ignore[arg-type] # on purpose


async def test_static_files_take_the_other_options_of_a_route(folder: Path) -> None:
    app = App()
    app.static("/assets", folder, name="files", summary="A file of ours.", tags=("files",), responses={404: "None."})
    operation = app.openapi()["paths"]["/assets/{path}"]["get"]
    assert (operation["summary"], operation["tags"]) == ("A file of ours.", ["files"])
    assert operation["responses"]["404"]["description"] == "None."


async def test_handlers_that_block_all_their_threads_hold_up_neither_files_nor_forms(folder: Path) -> None:
    app = App()
    app.static("/assets", folder)
    threads = int(anyio.to_thread.current_default_thread_limiter().total_tokens)
    released = threading.Event()
    blocked = 0
    all_blocked = anyio.Event()

    @app.get("/blocks", worker_thread=True)
    def blocks(request: Request) -> Response:
        anyio.from_thread.run_sync(count)
        released.wait()
        return Response("released")

    def count() -> None:
        nonlocal blocked
        blocked += 1
        if blocked == threads:
            all_blocked.set()

    @app.post("/form")
    async def form(request: Request) -> Response:
        async with read_form(request) as sent:
            return Response(await sent.files("file")[0].read())

    async with TestClient(app) as client, anyio.create_task_group() as tasks:
        for _ in range(threads):
            tasks.start_soon(client.get, "/blocks")
        try:
            with anyio.fail_after(20):
                await all_blocked.wait()
                assert (await client.get("/assets/css/site.css")).text == "p { color: red }"
                assert (await client.get("/assets/large.bin")).content == LARGE
                assert (await client.post("/form", files={"file": b"content"})).content == b"content"
        finally:
            released.set()
