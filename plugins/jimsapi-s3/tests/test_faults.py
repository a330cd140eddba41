"""A storage that cannot be used, does not answer, or is killed: what the operator reads, and that it recovers."""

import asyncio
import logging
import re
import signal
from contextlib import closing, suppress
from pathlib import Path

import pytest
from jimsapi_s3 import bucket as bucket_module
from jimsapi_s3.store import S3Store
from seaweed import ACCESS_KEY, SECRET_KEY, Seaweed
from stores import MIB, content, new_file, place, put, read, store_at

from jimsapi.threads import StoreUnavailable, StoreUnusable
from tests.command import run_command
from tests.plugins.uploads import LARGE, PATH, expect_little_memory, large_content, upload
from tests.ports import free_port
from tests.raw import connect, read_answer, request
from tests.serving import Served
from tests.waiting import eventually, insist


async def refusal(store: S3Store) -> str:
    """Return why a store cannot be opened."""
    with pytest.raises(StoreUnusable) as raised:
        async with store:
            pass
    return str(raised.value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "value", "cause", "way_out"),
    [
        ("AWS_SECRET_ACCESS_KEY", "hunter2hunter2", "SignatureDoesNotMatch", "check the credentials"),
        ("AWS_ACCESS_KEY_ID", "AKIANOBODY", "InvalidAccessKeyId", "check the credentials"),
        ("AWS_ACCESS_KEY_ID", "AKIAREADER", "AccessDenied", "check the credentials, and that they allow what"),
        ("AWS_PROFILE", "missing", "missing", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
    ],
)
async def test_wrong_credentials_stop_the_start(
    storage: Seaweed, bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, cause: str, way_out: str
) -> None:
    monkeypatch.setenv(name, value)
    text = await refusal(store_at(storage, bucket))
    assert text.startswith(f"cannot open --files-store: the file store s3://{bucket}/: ")
    assert cause in text
    assert way_out in text
    assert SECRET_KEY not in text
    assert "hunter2" not in text


@pytest.mark.anyio
async def test_missing_credentials_stop_the_start(
    storage: Seaweed, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in storage.env:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "Unable to locate credentials; set AWS_ACCESS_KEY_ID" in await refusal(store_at(storage, bucket))


@pytest.mark.anyio
async def test_a_missing_bucket_stops_the_start(storage: Seaweed, bucket: str) -> None:
    assert "NoSuchBucket" in (text := await refusal(store_at(storage, "no-such-bucket")))
    assert text.endswith("; create the bucket, or correct its name in --files-store")
    assert "no-such-bucket" not in [one["Name"] for one in storage.client.list_buckets()["Buckets"]]


@pytest.mark.anyio
async def test_a_storage_that_cannot_be_reached_stops_the_start(bucket: str) -> None:
    port = free_port()
    there = S3Store(place(Seaweed(Path()), bucket)._replace(endpoint=f"http://127.0.0.1:{port}"))
    text = await refusal(there)
    assert f"127.0.0.1:{port}" in text
    assert text.endswith("; check --s3-endpoint and --s3-region, and that this machine reaches the storage")


@pytest.mark.anyio
async def test_a_storage_that_does_not_answer_is_unavailable_and_works_again_afterwards(
    storage: Seaweed, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "ANSWER_WITHIN", 1.0)
    monkeypatch.setattr(bucket_module, "ATTEMPTS", 1)
    async with store_at(storage, bucket) as store:
        file = await insist(lambda: put(store))
        assert storage.process is not None
        storage.process.send_signal(signal.SIGSTOP)
        try:
            refused = await asyncio.gather(
                store.put(new_file(name="b"), content(b"hello"), MIB),
                store.find(file.file_id, None),
                store.read(file, 0, 5),
                store.files("ann", 10, None),
                store.delete(file),
                store.delete_contact("ann"),
                return_exceptions=True,
            )
        finally:
            storage.process.send_signal(signal.SIGCONT)
        for error in refused:
            assert isinstance(error, StoreUnavailable)
            assert (error.reason, "timeout" in str(error).lower()) == ("no answer", True)
        assert (await insist(lambda: store.files("ann", 10, None))).files == [file]
        assert await read(store, file) == b"hello"
        assert (await put(store, name="b")).name == "b"


@pytest.mark.anyio
async def test_nothing_that_is_logged_or_printed_has_the_credentials(
    storage: Seaweed, bucket: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
    logging.getLogger("botocore").setLevel(logging.NOTSET)
    with caplog.at_level(logging.DEBUG):
        text = await refusal(store := store_at(storage, bucket))
        monkeypatch.delenv("AWS_SESSION_TOKEN")
        async with store:
            await put(store)
        printed = f"{caplog.text} {text} {store!r} {vars(store)!r} {vars(store._bucket)!r}"
    for secret in (SECRET_KEY, "a-session-token", ACCESS_KEY):
        assert secret not in printed


# Served


def serving(storage: Seaweed, bucket: str, *options: str) -> Served:
    return Served("--files-store", f"s3://{bucket}/jims", "--s3-endpoint", storage.url, *options)


def test_a_hundred_megabytes_pass_through_little_memory(storage: Seaweed, bucket: str) -> None:
    with serving(storage, bucket, "--files-max-size", f"{2 * LARGE}") as served, served.client() as client:
        expect_little_memory(served, client, lambda: upload(client, large_content()))


def half_sent(served: Served, connection: object) -> None:
    """Send half of an upload of 16 MiB."""
    head = request(
        "POST", f"{PATH}?contact_id=ann&name=half", "content-type: text/plain", f"content-length: {16 * MIB}"
    )
    connection.sendall(head + b"x" * 8 * MIB)  # type: ignore[attr-defined] # a socket


def test_a_storage_that_is_killed_in_the_middle_of_an_upload_gets_503_and_the_server_recovers(
    storage: Seaweed,
    bucket: str,
) -> None:
    with serving(storage, bucket) as served, served.client() as client:
        file_id = upload(client).json()["file_id"]
        with closing(connect(served.port)) as connection:
            half_sent(served, connection)
            eventually(lambda: len(storage.left(bucket)) == 2)
            storage.stop()
            with suppress(BrokenPipeError):  # the answer may come first, and the server reads the rest for some seconds
                connection.sendall(b"x" * 8 * MIB)
            status, headers, body = read_answer(connection)
        assert (status, headers["retry-after"]) == (503, "5")
        assert body == b'{"detail":"The file store is not available: no answer; try again later"}'
        assert client.get(f"{PATH}/{file_id}").status_code == 503
        assert client.delete("/api/v1/contacts?contact_id=ann").status_code == 503
        # Messages need no file store, so the server stays ready for them.
        assert client.get("/readyz").status_code == 200
        assert client.post("/api/v1/chat", json={"contact_id": "ann", "message": "say hi"}).status_code == 200
        logged = re.compile(rf"ERROR jimsapi.files the file store s3://{bucket}/jims/: Could not connect")
        eventually(lambda: logged.search(served.stderr))
        assert SECRET_KEY not in served.stderr
        storage.start()
        assert client.get(f"{PATH}/{file_id}").content == b"hello"
        assert [file["name"] for file in client.get(f"{PATH}?contact_id=ann").json()["files"]] == ["a"]
        assert upload(client, b"x" * 8 * MIB, "b").status_code == 201


def test_a_check_with_connect_opens_the_bucket(storage: Seaweed, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("async def app(ctx): ...\n", encoding="utf-8")
    common = ("check", "--connect", "--app", "bot:app", "--store", "memory:", "--port", "0", "--metrics-port", "0")
    good, bad = (
        run_command(*common, "--files-store", f"s3://{name}", "--s3-endpoint", storage.url, cwd=tmp_path)
        for name in (bucket, "no-such-bucket")
    )
    assert good.returncode == 0, good.stderr
    assert bad.returncode != 0
    assert "NoSuchBucket" in bad.stderr
    assert "create the bucket, or correct its name in --files-store" in bad.stderr
    assert "Traceback" not in bad.stderr
    assert SECRET_KEY not in bad.stdout + bad.stderr
