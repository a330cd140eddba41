"""Forms and uploads."""

import asyncio
import csv
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from jimsapi.asgi import App, HTTPError, Request
from jimsapi.asgi.forms import Form, Upload, read_form

from .driver import Exchange, ask, chunks, http_scope

pytestmark = pytest.mark.anyio

BIG = os.urandom(3_000_000)
ROOT = Path(__file__).resolve().parents[2]


class Profile(msgspec.Struct):
    """What a form has."""

    name: str
    age: int
    tags: list[str] = []
    newsletter: bool = False


def app_with(use: Callable[[Form], Any], **limits: Any) -> App:
    """An app whose route answers what `use` returns for the form."""
    app = App()

    @app.post("/form", public=True, max_body=10_000_000)
    async def receive(request: Request) -> Any:
        async with read_form(request, **limits) as form:
            result = use(form)
            return await result if asyncio.iscoroutine(result) else result

    return app


async def post(app: App, **options: Any) -> Any:
    return await ask(app, "POST", "/form", **options)


def multipart(*parts: bytes, boundary: bytes = b"b") -> dict[str, Any]:
    """A request's content and headers; each part is its head, an empty line and its content."""
    content = b"".join(b"--%b\r\n%b\r\n" % (boundary, part) for part in parts) + b"--%b--\r\n" % boundary
    return {"content": content, "headers": {"content-type": f"multipart/form-data; boundary={boundary.decode()}"}}


def part(disposition: bytes, content: bytes = b"", *more: bytes) -> bytes:
    return b"\r\n".join([b"content-disposition: " + disposition, *more, b"", content])


def fields_of(form: Form) -> dict[str, Any]:
    return {"fields": list(form)}


async def test_text_fields_come_in_both_encodings() -> None:
    sent = {"name": "Ann & Bé", "age": "7", "tags": ["a", "b"], "newsletter": "on"}
    app = app_with(lambda form: [form.typed(Profile), {"last": form.get("tags"), "all": form.getlist("tags")}])
    for answer in (await post(app, data=sent), await post(app, data=sent, files={"x": ("x", b"")})):
        assert answer.json() == [
            {"name": "Ann & Bé", "age": 7, "tags": ["a", "b"], "newsletter": True},
            {"last": "b", "all": ["a", "b"]},
        ]


async def test_faulty_fields_are_listed_as_those_of_a_body() -> None:
    answer = await post(app_with(lambda form: form.typed(Profile)), data={"age": "x"})
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["body", "name"], ["body", "age"]]


async def test_files_are_read_whole_and_in_chunks_and_saved(tmp_path: Path) -> None:
    async def use(form: Form) -> Any:
        big, small = form.files("files")
        assert b"".join([chunk async for chunk in big.chunks()]) == BIG
        assert await big.read() == BIG
        await big.save(tmp_path / "big")
        with pytest.raises(FileExistsError):
            await small.save(tmp_path / "big")
        assert form.file("files") is small
        assert form.file("other") is None
        assert "files" not in form
        shown = [(each.name, each.filename, each.content_type, each.size) for each in (big, small)]
        return {"shown": shown, "small": (await small.read()).decode(), "title": form.get("title")}

    sent = [("files", ("b.bin", BIG, "application/x-big")), ("files", ("s.txt", b"small\r\n--"))]
    answer = await post(app_with(use), files=sent, data={"title": "two"})
    assert (tmp_path / "big").read_bytes() == BIG
    assert answer.json() == {
        "shown": [["files", "b.bin", "application/x-big", len(BIG)], ["files", "s.txt", "text/plain", 9]],
        "small": "small\r\n--",
        "title": "two",
    }


async def test_libraries_read_an_upload_as_a_file() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("table.csv", "a,b\n1,2\n")

    def read(upload: Upload) -> Any:
        with upload.open() as file:
            assert file.seek(0, os.SEEK_END) == upload.size
            assert file.read() == b""
            with pytest.raises(ValueError, match="no position -1"):
                file.raw.seek(-1)  # type: ignore[attr-defined]
            file.seek(0)
            with zipfile.ZipFile(file) as reader:
                return list(csv.reader(io.TextIOWrapper(reader.open("table.csv"))))

    async def use(form: Form) -> Any:
        upload = form.file("archive")
        assert upload is not None
        return await anyio.to_thread.run_sync(read, upload)

    files = [("first", ("first", b"before")), ("archive", ("a.zip", archive.getvalue())), ("last", ("last", b"after"))]
    assert (await post(app_with(use), files=files)).json() == [["a", "b"], ["1", "2"]]


async def test_a_body_in_any_pieces_gives_the_same_form() -> None:
    request = multipart(
        part(b'form-data; name="t"', b"\r\n--b-not-the-end\r\n"),
        part(b'form-data; name="f"; filename="f"', b"\r\n-\r\n--"),
    )

    async def use(form: Form) -> Any:
        upload = form.file("f")
        assert upload is not None
        return {"t": form.get("t"), "f": (await upload.read()).decode()}

    app = app_with(use)
    headers = [(name.encode(), value.encode()) for name, value in request["headers"].items()]
    headers.append((b"content-length", b"%d" % len(request["content"])))
    for size in (1, 2, 3, 7, 1000):
        pieces = [request["content"][at : at + size] for at in range(0, len(request["content"]), size)]
        exchange = await Exchange(*chunks(*pieces)).run(app, http_scope("POST", "/form", headers=headers))
        assert (exchange.status, exchange.body) == (200, b'{"t":"\\r\\n--b-not-the-end\\r\\n","f":"\\r\\n-\\r\\n--"}')


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        (b'form-data; name="f"; filename="a.txt"', "a.txt"),
        (b'form-data; name="f"; filename="../../etc/passwd"', "passwd"),
        (b'form-data; name="f"; filename="C:\\\\Users\\\\a.txt"', "a.txt"),
        (b'form-data; name="f"; filename="\xc3\xa9.txt"', "é.txt"),
        (b'form-data; name="f"; filename="a; b.txt"', "a; b.txt"),
        (b"form-data; name=f; filename=\"a.txt\"; filename*=UTF-8''..%2Fb.txt", "a.txt"),
    ],
)
async def test_the_name_of_a_file_has_no_folders(disposition: bytes, filename: str) -> None:
    app = app_with(lambda form: [each.filename for each in form.files("f")])
    assert (await post(app, **multipart(part(disposition, b"x")))).json() == [filename]


async def test_a_field_in_which_no_file_was_selected_has_none() -> None:
    app = app_with(lambda form: [each.filename for each in form.files("f")])
    nothing = part(b'form-data; name="f"; filename=""', b"", b"content-type: application/octet-stream")
    assert (await post(app, **multipart(nothing))).json() == []
    empty = part(b'form-data; name="f"; filename="empty"')
    assert (await post(app, **multipart(empty))).json() == ["empty"]


TEXT = part(b'form-data; name="t"', b"x" * 90)
FORM_TYPE = {"content-type": "application/x-www-form-urlencoded"}
UNFINISHED = {**multipart(TEXT), "content": multipart(TEXT)["content"][:-6]}


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (multipart(*[TEXT] * 3), 413),
        (multipart(*[part(b'form-data; name="t"')] * 5), 200),
        (multipart(*[part(b'form-data; name="t"')] * 6), 400),
        (multipart(*[part(b'form-data; name="t"; filename="f"')] * 6), 400),
        (multipart(part(b'form-data; name="%b"' % (b"n" * 201))), 413),
        (multipart(part(b'form-data; name="f"; filename="f"', b"x" * 10_000)), 200),
        ({"content": b"t=" + b"x" * 198, "headers": FORM_TYPE}, 200),
        ({"content": b"t=" + b"x" * 199, "headers": FORM_TYPE}, 413),
        ({"content": b"t=&" * 5, "headers": FORM_TYPE}, 400),
        (multipart(part(b'form-data; name="f"; filename="f"', b"x" * 10_000_000)), 413),
        (multipart(), 200),
        (multipart(part(b"form-data")), 400),
        (multipart(part(b'attachment; name="t"')), 400),
        (multipart(b"\r\nno head"), 400),
        (multipart(part(b'form-data; name="t"', b"", b"x: " + b"y" * 100_000)), 400),
        (multipart(b"no head at all"), 400),
        (UNFINISHED, 400),
        ({"content": b"", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400),
        ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"", "headers": {"content-type": f"multipart/form-data; boundary={'b' * 5000}"}}, 400),
        ({"content": b"", "headers": FORM_TYPE}, 200),
        ({"json": {"t": 1}}, 415),
        ({"content": b"x"}, 415),
        ({"content": b"x", "headers": {**FORM_TYPE, "content-encoding": "gzip"}}, 415),
    ],
)
async def test_a_form_over_a_limit_or_with_a_fault_is_refused(options: dict[str, Any], status: int) -> None:
    answer = await post(app_with(fields_of, max_parts=5, max_text=200), **options)
    assert answer.status_code == status, answer.text


def temporary_files() -> list[str]:
    """Open files that have no name."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return [link for link in links if "(deleted)" in link]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


async def test_uploads_are_in_one_file_that_is_gone_afterwards(folder: Path) -> None:
    before = temporary_files()
    kept: list[Upload] = []

    def use(form: Form) -> Any:
        kept.extend(form.files("f"))
        new = [link for link in temporary_files() if link not in before]
        assert len(new) == 1
        assert new[0].startswith(str(folder))
        assert os.listdir(folder) == []
        return {}

    answer = await post(app_with(use), files=[("f", (str(number), b"x" * 100_000)) for number in range(20)])
    assert answer.status_code == 200
    assert temporary_files() == before
    with pytest.raises(ValueError, match="The form was closed"):
        await kept[0].read()


async def test_the_file_is_gone_if_the_handler_fails_or_the_client_leaves_or_the_form_is_refused(folder: Path) -> None:
    before = temporary_files()

    def fail(form: Form) -> Any:
        raise HTTPError(409)

    assert (await post(app_with(fail), files={"f": ("f", BIG)})).status_code == 409
    assert temporary_files() == before

    refused = multipart(part(b'form-data; name="f"; filename="f"', BIG), TEXT)
    assert (await post(app_with(fields_of, max_parts=1), **refused)).status_code == 400
    assert temporary_files() == before

    begun = multipart(part(b'form-data; name="f"; filename="f"', BIG))
    headers = [(b"content-type", begun["headers"]["content-type"].encode()), (b"content-length", b"5000000")]
    leaving = Exchange({"type": "http.request", "body": begun["content"][:-99], "more_body": True}, hangs_up=True)
    await leaving.run(app_with(fields_of), http_scope("POST", "/form", headers=headers))
    assert leaving.sent == []
    assert temporary_files() == before


async def test_a_temporary_folder_that_cannot_be_written_is_503_and_not_a_fault_of_the_server(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_with(fields_of)
    folder.rmdir()
    answer = await post(app, files={"f": ("f", BIG)})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json() == {"detail": "The server cannot store the files of the form now; try again later"}
    assert "TMPDIR" in caplog.text
    assert "Traceback" not in caplog.text
    folder.mkdir()
    assert (await post(app, files={"f": ("f", BIG)})).status_code == 200


async def test_a_form_without_files_needs_no_temporary_file(folder: Path) -> None:
    before = temporary_files()

    def use(form: Form) -> Any:
        assert temporary_files() == before
        return {}

    assert (await post(app_with(use), **multipart(TEXT))).status_code == 200


def test_without_the_extra_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['python_multipart'] = None; import jimsapi.asgi; import jimsapi.asgi.forms"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 1
    assert (
        "ImportError: jimsapi.asgi.forms needs the package python-multipart: pip install 'jimsapi[forms]'" in run.stderr
    )


async def test_handlers_in_threads_read_forms_even_if_they_have_all_the_threads() -> None:
    app = App()

    @app.post("/form", public=True, worker_thread=True)
    def receive(request: Request) -> dict[str, int]:
        async def read() -> int:
            async with read_form(request) as form:
                return len(await form.files("file")[0].read())

        return {"size": anyio.from_thread.run(read)}

    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1

    async def end_the_deadlock() -> None:
        await anyio.sleep(10)
        limiter.total_tokens = before

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end_the_deadlock)
            assert (await post(app, files={"file": b"content"})).json() == {"size": 7}
            tasks.cancel_scope.cancel()
        assert limiter.total_tokens == 1
    finally:
        limiter.total_tokens = before


async def test_a_part_with_thousands_of_parameters_is_refused() -> None:
    sent = multipart(part(b'form-data; name="a"; filename="' + b";" * 90 + b'"', b"x"))
    assert (await post(app_with(lambda form: [form.files("a")[0].size]), **sent)).json() == [1]
    answer = await post(app_with(fields_of), **multipart(part(b'form-data; name="a"' + b";" * 3000)))
    assert (answer.status_code, answer.json()["detail"]) == (400, "A part of the form has more than 100 parameters")
