"""Real servers: memory, clients that leave, kills, a full disk, shutdowns, and two servers on one folder."""

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest
from filing import PATH, kept, left

from tests.faults.disk_image import Disk
from tests.raw import connect, read_answer, request
from tests.serving import Served
from tests.waiting import eventually

MIB = 1_048_576
HEAD = ("content-type: text/plain", "connection: close")


@contextmanager
def serving(folder: Path, *options: str, **more: object) -> Iterator[Served]:
    with Served("--files-store", f"file://{folder}", *options, **more) as served:  # type: ignore[arg-type] # those of Served
        yield served


def upload(client: httpx.Client, content: object = b"hello", contact: str = "ann", name: str = "a") -> httpx.Response:
    params = {"contact_id": contact, "name": name}
    return client.post(PATH, params=params, content=content, headers={"content-type": "text/plain"})  # type: ignore[arg-type] # httpx's own


def memory(served: Served, field: str) -> int:
    """Bytes of memory that the server has (`VmRSS`) or had at most (`VmHWM`)."""
    status = Path(f"/proc/{served.pid}/status").read_text(encoding="ascii")
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def pieces(count: int) -> Iterator[bytes]:
    """So many megabytes."""
    for number in range(count):
        yield bytes([number % 256]) * MIB


@pytest.mark.parametrize("form", [False, True])
def test_a_hundred_megabytes_pass_through_little_memory(folder: Path, tmp_path: Path, form: bool) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.writelines(pieces(100))
    with serving(folder, "--files-max-size", f"{200 * MIB}") as served, served.client() as client:
        upload(client)
        client.get(f"{PATH}?contact_id=ann")
        before = memory(served, "VmRSS")
        if form:
            with large.open("rb") as file:
                answer = client.post(PATH, params={"contact_id": "ann"}, files={"file": ("a", file, "text/plain")})
        else:
            answer = upload(client, pieces(100))
        assert answer.status_code == 201, answer.text
        assert answer.json()["size"] == 100 * MIB
        received = 0
        with client.stream("GET", f"{PATH}/{answer.json()['file_id']}") as stream:
            for number, part in enumerate(stream.iter_raw(MIB)):
                assert part == bytes([number % 256]) * MIB
                received += len(part)
        assert received == 100 * MIB
        assert memory(served, "VmHWM") - before < 40 * MIB
    assert left(folder) == []


@contextmanager
def half_sent(served: Served, folder: Path, size: int = 2 * MIB, contact: str = "ann") -> Iterator[None]:
    """An upload of which half has arrived. Leaving the context cuts the connection."""
    with closing(connect(served.port)) as connection:
        head = request("POST", f"{PATH}?contact_id={contact}&name=half", *HEAD, f"content-length: {size}")
        before = written(folder)
        connection.sendall(head + b"x" * (size // 2))
        eventually(lambda: written(folder) > before)
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


def test_a_body_that_is_announced_too_large_is_not_read(folder: Path) -> None:
    with serving(folder, "--files-max-size", "1000") as served, closing(connect(served.port)) as connection:
        head = request("POST", f"{PATH}?contact_id=ann", *HEAD, "content-length: 1001", "expect: 100-continue")
        connection.sendall(head)
        status, _, body = read_answer(connection)
        assert (status, body) == (413, b'{"detail":"The file is over the limit of 1000 bytes"}')
    assert (kept(folder), left(folder)) == ([], [])


def test_a_killed_server_leaves_no_half_file_and_the_next_start_removes_what_it_received(folder: Path) -> None:
    with serving(folder) as served:
        with served.client() as client:
            file_id = upload(client).json()["file_id"]
        with half_sent(served, folder):
            served.stop(signal.SIGKILL)
            assert (len(kept(folder)), len(left(folder))) == (1, 1)
    with serving(folder) as served, served.client() as client:
        assert left(folder) == []
        assert client.get(f"{PATH}/{file_id}").content == b"hello"
        assert upload(client, b"y" * 2 * MIB).status_code == 201


def test_a_shutdown_refuses_a_half_sent_upload_and_leaves_nothing(folder: Path) -> None:
    with serving(folder, "--drain-time", "5") as served, closing(connect(served.port)) as connection:
        head = request("POST", f"{PATH}?contact_id=ann", *HEAD, f"content-length: {2 * MIB}")
        connection.sendall(head + b"x" * MIB)
        eventually(lambda: written(folder) > 0)
        assert served.stop() == 0
        assert read_answer(connection)[0] == 503
        assert " ERROR " not in served.stderr
    assert (kept(folder), left(folder)) == ([], [])


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


def test_a_contact_that_another_server_deletes_during_an_upload_keeps_nothing(folder: Path) -> None:
    with serving(folder) as one, serving(folder) as other, closing(connect(one.port)) as connection:
        head = request("POST", f"{PATH}?contact_id=ann", *HEAD, f"content-length: {2 * MIB}")
        connection.sendall(head + b"x" * MIB)
        eventually(lambda: written(folder) > 0)
        with other.client() as client:
            assert client.delete("/api/v1/contacts?contact_id=ann").status_code == 204
        connection.sendall(b"x" * MIB)
        status, _, body = read_answer(connection)
        assert (status, body) == (409, b'{"detail":"The contact was deleted while its file was stored"}')
    assert (kept(folder), left(folder)) == ([], [])


def test_concurrent_uploads_do_not_exceed_the_quota(folder: Path) -> None:
    """Each of them has begun, or was refused, before the first one ends."""
    with serving(folder, "--files-quota", f"{3 * MIB}") as served, ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(served.port))) for _ in range(8)]
        for number, connection in enumerate(connections):
            head = request("POST", f"{PATH}?contact_id=ann&name={number}", *HEAD, f"content-length: {MIB}")
            connection.sendall(head + b"x" * (MIB - 1))
        eventually(lambda: len(list(folder.glob("incoming/*/content"))) == 3)
        for connection in connections:
            try:
                connection.sendall(b"x")
            except OSError:  # the server has refused it and closed the connection
                continue
        eventually(lambda: len(kept(folder)) == 3)
        eventually(lambda: left(folder) == [])
        assert sum(path.stat().st_size for path in kept(folder)) == 3 * MIB


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
