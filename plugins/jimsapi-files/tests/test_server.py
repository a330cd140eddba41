"""Real servers: memory, clients that leave, a full disk, and two servers on one folder."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest
from filing import kept, left

from tests.faults.disk_image import Disk
from tests.plugins.uploads import LARGE, MIB, PATH, expect_little_memory, large_content, upload
from tests.raw import connect, request
from tests.serving import Served
from tests.waiting import eventually


@contextmanager
def serving(folder: Path, *options: str, **more: object) -> Iterator[Served]:
    with Served("--files-store", f"file://{folder}", *options, **more) as served:  # type: ignore[arg-type] # those of Served
        yield served


@pytest.mark.parametrize("form", [False, True])
def test_a_hundred_megabytes_pass_through_little_memory(folder: Path, tmp_path: Path, form: bool) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.writelines(large_content())
    with serving(folder, "--files-max-size", f"{2 * LARGE}") as served, served.client() as client:

        def send() -> httpx.Response:
            if not form:
                return upload(client, large_content())
            with large.open("rb") as file:
                return client.post(PATH, params={"contact_id": "ann"}, files={"file": ("a", file, "text/plain")})

        expect_little_memory(served, client, send)
    assert left(folder) == []


@contextmanager
def half_sent(served: Served, folder: Path) -> Iterator[None]:
    """An upload of 2 MiB of which half has arrived. Leaving the context cuts the connection."""
    with closing(connect(served.port)) as connection:
        headers = ("content-type: text/plain", f"content-length: {2 * MIB}")
        connection.sendall(request("POST", f"{PATH}?contact_id=ann&name=half", *headers) + b"x" * MIB)
        eventually(lambda: written(folder) > 0)
        yield


def written(folder: Path) -> int:
    """How many blocks of uploads are on the disk."""
    found = 0
    for path in folder.glob("incoming/*/content"):
        try:
            found += path.stat().st_blocks
        except FileNotFoundError:
            continue
    return found


def test_a_client_that_leaves_in_the_middle_of_an_upload_leaves_nothing(folder: Path) -> None:
    with serving(folder, "--files-quota", f"{3 * MIB}") as served, served.client() as client:
        with half_sent(served, folder):
            assert len(left(folder)) == 1
            assert upload(client, b"y" * 2 * MIB).status_code == 507
        eventually(lambda: left(folder) == [])
        assert kept(folder) == []
        assert upload(client, b"y" * 2 * MIB).status_code == 201
        assert " ERROR " not in served.stderr


def test_a_full_disk_is_503_with_its_reason_and_the_server_recovers(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk", tmp_path)
    disk.begin()
    folder = disk.folder / "files"
    with serving(folder, env=disk.env) as served, served.client() as client:
        assert upload(client).status_code == 201
        disk.fill()
        answer = upload(client, b"y" * MIB)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json() == {"detail": "The file store is not available: disk full; try again later"}
        logged = re.compile(r"ERROR jimsapi.files .*the file store file://.*No space left on device")
        eventually(lambda: logged.search(served.stderr))
        assert (len(kept(folder)), left(folder)) == (1, [])
        disk.empty()
        assert upload(client, b"y" * MIB).status_code == 201
        assert client.get("/readyz").status_code == 200


def test_two_servers_share_a_folder(folder: Path) -> None:
    with ExitStack() as stack:
        one = stack.enter_context(serving(folder, "--files-quota", f"{3 * MIB}"))
        with half_sent(one, folder):
            other = stack.enter_context(serving(folder, "--files-quota", f"{3 * MIB}"))
            clients = [stack.enter_context(served.client()) for served in (one, other)]
            assert len(left(folder)) == 1, "the start of the second server removed an upload of the first"
            for client in clients:
                assert upload(client, b"y" * 2 * MIB).status_code == 507
        eventually(lambda: left(folder) == [])
        file_id = upload(clients[0], b"y" * 2 * MIB).json()["file_id"]
        assert upload(clients[1], b"z" * 2 * MIB).status_code == 507
        assert clients[1].get(f"{PATH}/{file_id}").content == b"y" * 2 * MIB
        assert clients[1].delete(f"{PATH}/{file_id}").status_code == 204
        assert clients[0].get(f"{PATH}/{file_id}").status_code == 404


def test_a_file_store_that_fails_does_not_lose_the_deletion_of_a_contact(folder: Path) -> None:
    with serving(folder) as served, served.client() as client:
        upload(client)
        client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
        [shard] = {content.parents[2] for content in kept(folder)}
        shard.rename(folder / "aside")
        shard.write_text("in the way")
        answer = client.delete("/api/v1/contacts?contact_id=ann")
        assert answer.status_code == 503
        assert len(client.get("/api/v1/threads?contact_id=ann").json()["threads"]) == 1
        shard.unlink()
        (folder / "aside").rename(shard)
        assert client.delete("/api/v1/contacts?contact_id=ann").status_code == 204
        assert client.get("/api/v1/threads?contact_id=ann").json()["threads"] == []
    assert kept(folder) == []
