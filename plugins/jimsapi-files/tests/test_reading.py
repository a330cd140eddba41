"""`GET` and `DELETE /api/v1/files/{id}`, and the list: what is sent, and what a browser may do with it."""

import asyncio
import gc
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from filing import PATH, kept, left, stored, upload

from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * 4000  # 1,024,000 bytes, in four pieces
OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("kind", "sent", "shown"),
    [
        ("image/png", "image/png", True),
        ("image/jpeg", "image/jpeg", True),
        ("image/gif", "image/gif", True),
        ("image/webp", "image/webp", True),
        ("text/plain", "text/plain; charset=utf-8", True),
        ("text/csv", "text/csv; charset=utf-8", False),
        ("application/pdf", "application/pdf", False),
        ("application/json", "application/json", False),
        ("video/mp4", "video/mp4", False),
        ("image/svg+xml", OCTETS, False),
        ("image/x+xml", OCTETS, False),
        ("text/html", OCTETS, False),
        ("text/xml", OCTETS, False),
        ("application/xhtml+xml", OCTETS, False),
        ("application/xml", OCTETS, False),
        ("text/javascript", OCTETS, False),
        ("application/javascript", OCTETS, False),
        ("text/css", OCTETS, False),
        ("message/rfc822", OCTETS, False),
        ("application/wasm", OCTETS, False),
        ("imagex/png", OCTETS, False),
        ("x/y", OCTETS, False),
    ],
)
async def test_no_browser_executes_what_was_uploaded(client: TestClient, kind: str, sent: str, shown: bool) -> None:
    file_id = await stored(client, b"<script>alert(1)</script>", kind=kind, name="a.html")
    for method in ("GET", "HEAD"):
        answer = await client.request(method, f"{PATH}/{file_id}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, sent)
        assert answer.headers["content-disposition"].startswith("inline;" if shown else "attachment;")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a b-c_(1).txt", "a b-c_(1).txt"),
        ("naïve €.txt", "na_ve _.txt"),
        ('"; filename="evil.html', "__ filename__evil.html"),
        ("a;b=c,d.txt", "a_b_c_d.txt"),
        ("%22%0d%0a.txt", "_22_0d_0a.txt"),
        ("😀", "_"),
    ],
)
async def test_the_name_comes_back_whatever_it_is(client: TestClient, name: str, plain: str) -> None:
    answer = await client.get(f"{PATH}/{await stored(client, name=name)}")
    kind, parameters = answer.headers["content-disposition"].split("; ", 1)
    filename, extended = parameters.rsplit("; ", 1)
    assert (kind, filename) == ("inline", f'filename="{plain}"')
    assert unquote(extended.removeprefix("filename*=UTF-8''")) == name
    assert extended.isascii()
    assert set(extended) & set(' ";,\\') == set()


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1023990-", 1_023_990, 1_024_000),
        ("bytes=-10", 1_023_990, 1_024_000),
        ("bytes=-99999999", 0, 1_024_000),
        ("bytes=1-99999999", 1, 1_024_000),
        ("Bytes=300000-800000", 300_000, 800_001),
    ],
)
async def test_a_range_of_bytes_is_sent_alone(client: TestClient, wanted: str, begin: int, end: int) -> None:
    file_id = await stored(client, LARGE, kind="image/png")
    answer = await client.get(f"{PATH}/{file_id}", headers={"range": wanted})
    assert (answer.status_code, answer.content) == (206, LARGE[begin:end])
    assert answer.headers["content-range"] == f"bytes {begin}-{end - 1}/1024000"
    assert answer.headers["content-length"] == str(end - begin)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("inline")


@pytest.mark.parametrize(
    "wanted", ["bytes=5-4", "bytes=-", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=0-1x", ""]
)
async def test_a_range_that_is_not_understood_is_ignored(client: TestClient, wanted: str) -> None:
    answer = await client.get(f"{PATH}/{await stored(client)}", headers={"range": wanted})
    assert (answer.status_code, answer.text) == (200, "hello")


async def test_a_range_after_the_end_is_refused_and_that_of_another_version_is_ignored(client: TestClient) -> None:
    place = f"{PATH}/{await stored(client)}"
    for wanted in ("bytes=5-", "bytes=-0", "bytes=999999999999999999-"):
        answer = await client.get(place, headers={"range": wanted})
        assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */5")
    tag = (await client.get(place)).headers["etag"]
    for condition, status in ((tag, 206), ('"other"', 200)):
        headers = {"range": "bytes=0-1", "if-range": condition}
        assert (await client.get(place, headers=headers)).status_code == status
    empty = f"{PATH}/{await stored(client, b'', name='empty')}"
    assert (await client.get(empty, headers={"range": "bytes=0-0"})).status_code == 416
    assert (await client.get(empty)).headers["content-length"] == "0"


async def test_a_request_for_another_version_gets_412_and_deletes_nothing(client: TestClient) -> None:
    place = f"{PATH}/{await stored(client)}"
    tag = (await client.get(place)).headers["etag"]
    for call in (client.get, client.delete):
        assert (await call(place, headers={"if-match": '"x"'})).status_code == 412
    assert (await client.get(place, headers={"if-match": tag})).status_code == 200
    assert (await client.delete(place, headers={"if-match": tag})).status_code == 204
    assert (await client.get(place, headers={"if-match": tag})).status_code == 404


async def test_a_client_that_has_the_file_gets_304(client: TestClient) -> None:
    place = f"{PATH}/{await stored(client)}"
    first = await client.get(place)
    for known in (
        {"if-none-match": first.headers["etag"]},
        {"if-none-match": f'"x", W/{first.headers["etag"]}'},
        {"if-none-match": "*"},
        {"if-modified-since": first.headers["last-modified"]},
    ):
        answer = await client.get(place, headers=known)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", first.headers["etag"])
        assert answer.headers["cache-control"] == "private, no-cache"
        assert "content-length" not in answer.headers
    assert (await client.get(place, headers={"if-none-match": '"x"'})).status_code == 200
    other = await client.get(f"{PATH}/{await stored(client, b'Hello')}")
    assert other.headers["etag"] != first.headers["etag"]


async def test_head_has_the_headers_of_the_whole_file_and_no_content(client: TestClient) -> None:
    place = f"{PATH}/{await stored(client, LARGE)}"
    head, whole = await client.head(place, headers={"range": "bytes=0-1"}), await client.get(place)
    assert (head.status_code, head.content) == (200, b"")
    skipped = {"x-request-id", "date"}
    assert {name: value for name, value in head.headers.items() if name not in skipped} == {
        name: value for name, value in whole.headers.items() if name not in skipped
    }


async def test_a_large_file_is_sent_in_pieces(client: TestClient) -> None:
    async with client.stream("GET", f"{PATH}/{await stored(client, LARGE)}") as answer:
        parts = [part async for part in answer.aiter_raw()]
    assert b"".join(parts) == LARGE
    assert len(parts) == 4


async def test_a_file_that_is_deleted_while_it_is_sent_arrives_whole(client: TestClient) -> None:
    place = f"{PATH}/{await stored(client, LARGE)}"
    async with client.stream("GET", place) as answer:
        parts = answer.aiter_raw()
        received = await anext(parts)
        assert (await client.delete(place)).status_code == 204
        assert (await client.get(place)).status_code == 404
        received += b"".join([part async for part in parts])
    assert received == LARGE


async def test_a_client_that_leaves_in_the_middle_closes_the_file(client: TestClient, folder: Path) -> None:
    place = f"{PATH}/{await stored(client, LARGE)}"
    await client.get(place)
    assert open_files(folder) == set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        async with client.stream("GET", place) as answer:
            await anext(answer.aiter_raw())
            assert len(open_files(folder)) == 1
        await client.head(place)
        gc.collect()
    assert open_files(folder) == set()
    assert [str(one.message) for one in caught] == []


def open_files(folder: Path) -> set[Path]:
    """The files below ``folder`` that the process has open; other threads open files elsewhere at any time."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = link.readlink()
        except FileNotFoundError:
            continue
        if target.is_relative_to(folder):
            found.add(target)
    return found


async def test_of_two_deletions_at_once_one_finds_the_file(client: TestClient) -> None:
    place = f"{PATH}/{await stored(client)}"
    answers = await asyncio.gather(*[client.delete(place) for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [204] + [404] * 7


@pytest.mark.parametrize(
    "file_id",
    ["x", "..", "%2e%2e", "..%2f..%2fkey", "key", "0" * 64, "0" * 63, "A" * 64, "0" * 65, "%00", "%0a", "*", "%E9",
     "a" * 5000, "0" * 62 + "%2f.", "%2fetc%2fpasswd"],
)  # fmt: skip
async def test_an_identifier_that_is_none_is_not_found(client: TestClient, file_id: str) -> None:
    await stored(client)
    for method in ("GET", "HEAD", "DELETE"):
        answer = await client.request(method, f"{PATH}/{file_id}")
        assert answer.status_code in (404, 405), (method, file_id, answer.status_code)
        assert "root:" not in answer.text


async def test_an_upper_case_identifier_is_another_one(client: TestClient) -> None:
    file_id = await stored(client)
    assert (await client.get(f"{PATH}/{file_id.upper()}")).status_code == 404
    assert (await client.get(f"{PATH}/{file_id}%0a")).status_code == 404


async def test_the_files_of_a_contact_are_listed_page_by_page(client: TestClient) -> None:
    stored_ids = {await stored(client, name=f"{number}.txt") for number in range(5)}
    await stored(client, contact="bea")
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"contact_id": "ann", "limit": 2}
    for size in (2, 2, 1):
        page = (await client.get(PATH, params=params)).json()
        assert len(page["files"]) == size
        found += page["files"]
        params["after"] = page["next"]
    assert params["after"] is None
    assert {file["file_id"] for file in found} == stored_ids
    for file in found:
        assert set(file) == {"file_id", "name", "type", "size", "created_at"}
        assert file["created_at"].endswith("Z")
    assert (await client.get(PATH, params={"contact_id": "cay"})).json() == {"files": [], "next": None}


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"contact_id": "ann", "after": "x"}, "after"),
        ({"contact_id": "ann", "after": "0" * 64}, "after"),
        ({"contact_id": "ann", "limit": "0"}, "limit"),
        ({"contact_id": "ann", "limit": "1001"}, "limit"),
        ({}, "contact_id"),
        ({"contact_id": "a\0"}, "contact_id"),
    ],
)
async def test_a_faulty_list_is_refused(client: TestClient, params: dict[str, str], field: str) -> None:
    answer = await client.get(PATH, params=params)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", field]


async def test_deleting_a_contact_deletes_its_files(client: TestClient, folder: Path) -> None:
    files = [await stored(client, name=f"{number}") for number in range(3)]
    other = await stored(client, contact="bea")
    await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "send Hi"})
    assert (await client.delete("/api/v1/contacts", params={"contact_id": "ann"})).status_code == 204
    for file_id in files:
        assert (await client.get(f"{PATH}/{file_id}")).status_code == 404
    assert (await client.get("/api/v1/threads", params={"contact_id": "ann"})).json()["threads"] == []
    assert (await client.get(f"{PATH}/{other}")).status_code == 200
    assert (len(kept(folder)), left(folder)) == (1, [])
    assert (await upload(client)).status_code == 201
