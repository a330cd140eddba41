"""`POST /api/v1/files`: what is stored, under which name and type, and what is refused."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from filing import PATH, chunks, kept, left, stored, upload

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.serving import ROOT

pytestmark = pytest.mark.anyio

MIB = 1_048_576


async def echo(ctx: ThreadContext) -> None:
    ctx.send_message(ctx.get_last_user_message())


@pytest.mark.parametrize("content", [b"hello", b"", bytes(range(256)) * 4096])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_is_stored_with_its_name_and_type(
    client: TestClient, folder: Path, content: bytes, announced: bool
) -> None:
    answer = await upload(client, content if announced else chunks(content[:3], content[3:]), kind="Image/PNG; x=y")
    assert answer.status_code == 201, answer.text
    file = answer.json()
    assert file == {"file_id": file["file_id"], "name": "a.txt", "type": "image/png", "size": len(content)}
    assert answer.headers["location"] == f"{PATH}/{file['file_id']}"
    assert (await client.get(answer.headers["location"])).content == content
    assert [path.read_bytes() for path in kept(folder)] == [content]
    assert left(folder) == []


async def test_a_form_is_stored_with_the_name_and_type_of_its_part(client: TestClient, folder: Path) -> None:
    for params, name in (({}, "cat.png"), ({"name": "dog.png"}, "dog.png")):
        form = {"file": ("C:\\pictures\\cat.png", b"meow" * 100_000, "image/png")}
        answer = await client.post(PATH, params={"contact_id": "ann", **params}, files=form, data={"note": "x"})
        assert answer.status_code == 201, answer.text
        file = answer.json()
        assert (file["name"], file["type"], file["size"]) == (name, "image/png", 400_000)
        assert (await client.get(f"{PATH}/{file['file_id']}")).content == b"meow" * 100_000
    assert left(folder) == []


async def test_the_server_names_and_types_what_the_client_does_not(client: TestClient) -> None:
    answer = await upload(client, name=None, kind=None)
    assert answer.json()["name"] == "file"
    assert answer.json()["type"] == "application/octet-stream"
    assert (await upload(client, name="")).json()["name"] == "file"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="a b.txt"', "a b.txt"),
        ("attachment; filename=a.txt", "a.txt"),
        ("attachment;filename=a.txt;x=y", "a.txt"),
        ('attachment; filename="quo\\"te.txt"', 'quo"te.txt'),
        ("attachment; filename=\"plain.txt\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt", "naïve €.txt"),
        ("attachment; filename*=utf-8'en'x.txt; filename=plain.txt", "x.txt"),
        ("attachment; filename*=ISO-8859-1''%E9.txt; filename=plain.txt", "plain.txt"),
        ('attachment; filename="/etc/passwd"', "passwd"),
        ("attachment; filename*=UTF-8''..%2F..%2Fx", "x"),
        ("attachment", "file"),
        ("", "file"),
        (';;;==="', "file"),
    ],
)
async def test_a_name_may_be_in_content_disposition(client: TestClient, header: str, name: str) -> None:
    answer = await upload(client, name=None, headers={"content-disposition": header})
    assert (answer.status_code, answer.json().get("name")) == (201, name)
    answer = await upload(client, name="query.txt", headers={"content-disposition": header})
    assert answer.json()["name"] == "query.txt"


async def test_a_name_in_bytes_of_utf_8_is_read_as_browsers_send_it(client: TestClient) -> None:
    header = [(b"content-disposition", 'attachment; filename="naïve.txt"'.encode()), (b"content-type", b"text/plain")]
    answer = await client.post(PATH, params={"contact_id": "ann"}, content=b"x", headers=header)
    assert answer.json()["name"] == "naïve.txt"


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/", "file"),
        ("a/", "file"),
        ("  spaces  ", "spaces"),
        ("Grüße 😀.png", "Grüße 😀.png"),
        ("שלום.txt", "שלום.txt"),
        ('"; filename=evil.html; x="', '"; filename=evil.html; x="'),
        ("%2e%2e%2fx", "%2e%2e%2fx"),
        (".htaccess", ".htaccess"),
        ("CON", "CON"),
        ("x" * 255, "x" * 255),
    ],
)
async def test_a_name_is_kept_without_its_folders_and_never_used_on_the_disk(
    client: TestClient, folder: Path, tmp_path: Path, sent: str, name: str
) -> None:
    answer = await upload(client, name=sent)
    assert (answer.status_code, answer.json().get("name")) == (201, name), answer.text
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"key", "content", "about"}
    assert {path.name for path in tmp_path.iterdir()} <= {"files"}


@pytest.mark.parametrize(
    "name",
    ["a\r\nset-cookie: x=y", "a\nb", "a\0b", "\x7f", "a\x85b", "a\u2028b", "\u202egpj.exe", "a\u2066b", ".", "..",
     "x/..", "x" * 256, "é" * 128, "x" * 10_000],
)  # fmt: skip
async def test_a_name_that_could_deceive_is_refused(client: TestClient, folder: Path, name: str) -> None:
    answer = await upload(client, name=name)
    assert answer.status_code == 422, answer.text
    [fault] = answer.json()["detail"]
    assert fault["loc"] == ["query", "name"]
    assert (kept(folder), left(folder)) == ([], [])


@pytest.mark.parametrize("header", ["attachment; filename*=UTF-8''%ff", "attachment; " + "a=b; " * 1000 + "filename=x"])
async def test_a_disposition_that_cannot_be_read_is_refused(client: TestClient, header: str) -> None:
    answer = await upload(client, name=None, headers={"content-disposition": header})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", "content-disposition"]


async def test_a_name_of_a_form_that_could_deceive_is_refused(client: TestClient, folder: Path) -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a\xe2\x80\xaeb"\r\n\r\nx\r\n--b--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await client.post(PATH, params={"contact_id": "ann"}, content=body, headers=headers)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "file"])
    assert (kept(folder), left(folder)) == ([], [])


@pytest.mark.parametrize(
    "kind", ["text", "text/", "/x", "a/b/c", "te xt/plain", "text/plain\x01", "é/x", "x" * 200 + "/y"]
)
async def test_a_type_that_is_none_is_refused(client: TestClient, folder: Path, kind: str) -> None:
    headers = [(b"content-type", kind.encode("latin-1"))]
    answer = await client.post(PATH, params={"contact_id": "ann"}, content=b"x", headers=headers)
    assert answer.status_code == 415
    assert (kept(folder), left(folder)) == ([], [])


@pytest.mark.parametrize("options", [{"files_types": ["image/*", "Application/PDF"]}])
async def test_only_the_types_of_the_options_are_accepted(client: TestClient, folder: Path) -> None:
    for kind, status in (
        ("image/png", 201), ("IMAGE/GIF", 201), ("application/pdf; version=2", 201), ("text/html", 415),
        ("application/json", 415), ("imagex/png", 415), (None, 415),
    ):  # fmt: skip
        assert (await upload(client, kind=kind)).status_code == status, kind
        form = {"file": ("a", b"x", kind or "application/octet-stream")}
        assert (await client.post(PATH, params={"contact_id": "bea"}, files=form)).status_code == status, kind
    refused = await upload(client, kind="text/html")
    assert refused.json() == {
        "detail": "Files of the type text/html are not accepted; accepted are: image/*, Application/PDF"
    }
    assert left(folder) == []


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=b"])
async def test_a_compressed_body_is_refused(client: TestClient, kind: str) -> None:
    answer = await upload(client, kind=kind, headers={"content-encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"--b--\r\n", 422),
        (b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n', 422),
        (b'--b\r\ncontent-disposition: form-data; name="other"; filename="a"\r\n\r\nx\r\n--b--\r\n', 422),
        (b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n' * 2 + b"--b--\r\n", 422),
        (b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx', 400),
        (b"hello", 400),
    ],
)
async def test_a_form_without_exactly_one_file_is_refused(
    client: TestClient, folder: Path, body: bytes, status: int
) -> None:
    answer = await upload(client, body, kind="multipart/form-data; boundary=b")
    assert answer.status_code == status, answer.text
    assert (kept(folder), left(folder)) == ([], [])


async def never(fails: bool = True) -> AsyncIterator[bytes]:
    """A body that nobody may read."""
    assert not fails, "the body was read"
    yield b""


@pytest.mark.parametrize("options", [{"files_max_size": 100_000}])
async def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(client: TestClient, folder: Path) -> None:
    assert (await upload(client, b"x" * 100_000)).status_code == 201
    announced = await upload(client, never(), headers={"content-length": "100001"})
    streamed = await upload(client, chunks(b"x" * 99_999, b"yy"))
    form = await client.post(PATH, params={"contact_id": "ann"}, files={"file": ("a", b"x" * 100_001, "text/plain")})
    large = await client.post(PATH, params={"contact_id": "ann"}, files={"file": ("a", b"x" * 300_000, "text/plain")})
    assert [answer.status_code for answer in (announced, streamed, form, large)] == [413] * 4
    assert announced.json() == form.json() == {"detail": "The file is over the limit of 100000 bytes"}
    assert streamed.json() == {"detail": "The request body is over the limit of 100000 bytes"}
    assert len(kept(folder)) == 1
    assert left(folder) == []


@pytest.mark.parametrize("options", [{"files_max_size": 2 * MIB, "max_body": 1000}])
async def test_a_file_may_be_larger_than_other_bodies(client: TestClient) -> None:
    assert (await upload(client, b"x" * 2 * MIB)).status_code == 201
    answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "x" * 1000})
    assert answer.status_code == 413


@pytest.mark.parametrize("options", [{"files_quota": 3 * MIB}])
async def test_a_contact_cannot_exceed_its_quota(client: TestClient, folder: Path) -> None:
    first = await stored(client, b"a" * 2 * MIB, name="a")
    for content in (b"b" * (MIB + 1), chunks(b"b" * MIB, b"b")):
        answer = await upload(client, content, name="b")
        assert answer.status_code == 507
        assert answer.json() == {
            "detail": f"The files of this contact may have {3 * MIB} bytes together; delete some of them first"
        }
    assert (await upload(client, b"b" * (MIB + 1), name="b", contact="bea")).status_code == 201
    assert (await upload(client, b"c" * MIB, name="c")).status_code == 201
    assert (await upload(client, b"", name="d")).status_code == 507
    assert (await client.delete(f"{PATH}/{first}")).status_code == 204
    assert (await upload(client, b"b" * (MIB + 1), name="b")).status_code == 201
    assert left(folder) == []


@pytest.mark.parametrize(
    ("contact", "status"), [(None, 422), ("a\0b", 422), ("x" * 2001, 422), ("", 201), ("Zoë/..", 201)]
)
async def test_a_caller_that_is_bound_to_no_contact_names_one(
    client: TestClient, contact: str | None, status: int
) -> None:
    answer = await upload(client, contact=contact)
    assert answer.status_code == status, answer.text
    if status == 422:
        assert answer.json()["detail"][0]["loc"] == ["query", "contact_id"]


FOREIGN = {"origin": "https://evil.example"}


@pytest.mark.parametrize(
    ("cors", "headers", "kind", "status"),
    [
        ([], FOREIGN, "text/plain", 403),
        ([], FOREIGN, "multipart/form-data; boundary=b", 403),
        ([], FOREIGN, "Application/X-WWW-Form-Urlencoded", 403),
        ([], FOREIGN, None, 403),
        ([], FOREIGN, "nonsense", 403),
        ([], {"origin": "null"}, "text/plain", 403),
        (["*"], FOREIGN, "text/plain", 403),
        (["https://shop.example"], FOREIGN, "text/plain", 403),
        (["https://shop.example"], {"origin": "https://shop.example"}, "text/plain", 201),
        (["*"], {**FOREIGN, "authorization": "Bearer x"}, "text/plain", 201),
        (["*"], {**FOREIGN, "authorization": "Basic eDp5"}, "text/plain", 403),  # a browser may have kept it
        ([], {"origin": "http://testserver"}, "text/plain", 201),
        ([], {}, "text/plain", 201),
        (["*"], FOREIGN, "image/png", 201),  # a browser asks before it sends this
    ],
)
async def test_a_page_of_another_origin_cannot_upload_in_the_name_of_its_visitor(
    folder: Path, cors: list[str], headers: dict[str, str], kind: str | None, status: int
) -> None:
    api = create_api(echo, store="memory:", files_store=f"file://{folder}", cors_origin=cors)
    async with TestClient(api) as client:
        assert (await upload(client, kind=kind, headers=headers)).status_code == status
    assert len(kept(folder)) == (status == 201)


async def test_an_upload_that_a_shutdown_cancels_is_503_and_leaves_nothing(folder: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * MIB
        begun.set()
        await asyncio.Event().wait()

    api = create_api(echo, store="memory:", files_store=f"file://{folder}")
    async with TestClient(api) as client:
        answer = asyncio.create_task(upload(client, endless()))
        await begun.wait()
        assert len(left(folder)) == 1
        assert api.service is not None
        api.service.draining = True
        [task] = [task for task in asyncio.all_tasks() if task.get_name() == "app of a request"]
        task.cancel()
        assert (await answer).json() == {"detail": "The server is shutting down; try again"}
        assert (await answer).status_code == 503
    assert (kept(folder), left(folder)) == ([], [])


async def test_without_a_file_store_there_are_no_routes() -> None:
    async with TestClient(create_api(echo, store="memory:")) as client:
        assert (await upload(client)).status_code == 404
        assert "/api/v1/files" not in (await client.get("/openapi.json")).json()["paths"]


def test_without_a_file_store_nothing_is_imported() -> None:
    code = """
        import sys
        from jimsapi.api.app import configure
        configure([], {})
        print(*(name for name in sys.modules if name.startswith("jimsapi_files")))
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JIMS_")}
    lines = "\n".join(line.strip() for line in code.splitlines())
    printed = subprocess.check_output([sys.executable, "-c", lines], text=True, cwd=ROOT, env=clean)
    assert printed.split() == ["jimsapi_files"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"files_types": ["png"]}, "--files-types: 'png' is not a media type; give image/png, image/\\* or \\*/\\*"),
        ({"files_types": ["*/png"]}, "--files-types: '\\*/png' is not a media type"),
        ({"files_store": "file:relative"}, "--files-store file:relative: give the whole path of a folder"),
        ({"files_store": "file://host/x"}, "give the whole path of a folder"),
        ({"files_store": "file:///"}, "give the whole path of a folder"),
        ({"files_store": "file:///x?y=z"}, "give the whole path of a folder"),
        ({"files_store": "gs://bucket"}, "--files-store gs://bucket: no installed plugin keeps files there"),
        ({"files_store": "file:///nowhere/at/all"}, "No such file or directory: .*; create the folder above it"),
        ({"files_store": "file:///dev/null"}, "Not a directory"),
        ({"files_max_size": 0}, "--files-max-size: 0 is not"),
    ],
)
async def test_faulty_options_stop_the_start(settings: dict[str, Any], given: dict[str, Any], reason: str) -> None:
    with pytest.raises(RuntimeError, match=reason):
        async with TestClient(create_api(echo, store="memory:", **{**settings, **given})):
            pass


async def test_the_routes_are_documented(client: TestClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {(path, method) for path in paths if path.startswith(PATH) for method in paths[path]} == {
        (PATH, "get"), (PATH, "post"), (f"{PATH}/{{id}}", "get"), (f"{PATH}/{{id}}", "delete"),
    }  # fmt: skip
    responses = paths[PATH]["post"]["responses"]
    assert {"201", "401", "403", "409", "413", "415", "422", "503", "507"} <= set(responses)
    assert "multipart/form-data" in paths[PATH]["post"]["requestBody"]["content"]
    reading = paths[f"{PATH}/{{id}}"]["get"]["responses"]
    assert {"304", "401", "403", "404", "416", "422", "503"} <= set(reading)
    assert list(reading["200"]["content"]) == list(reading["206"]["content"]) == ["application/octet-stream"]
