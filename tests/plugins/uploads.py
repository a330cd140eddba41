"""Files that a test uploads to a real server, small ones and one of a hundred megabytes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from tests.serving import Served

PATH = "/api/v1/files"
MIB = 1_048_576
LARGE = 100 * MIB


def upload(client: httpx.Client, content: object = b"hello", name: str = "a", contact: str = "ann") -> httpx.Response:
    """Send a file."""
    params = {"contact_id": contact, "name": name}
    return client.post(PATH, params=params, content=content, headers={"content-type": "text/plain"})  # type: ignore[arg-type] # httpx's own


def large_content() -> Iterator[bytes]:
    """`LARGE` bytes in pieces of one megabyte, each of another byte."""
    for number in range(LARGE // MIB):
        yield bytes([number]) * MIB


def expect_little_memory(served: Served, client: httpx.Client, send: Callable[[], httpx.Response]) -> None:
    """Send the large content, and read it. Fails if the server needs much more memory for it than for a small file."""
    upload(client, b"x" * 6 * MIB)
    client.get(f"{PATH}?contact_id=ann")
    before = memory(served, "VmRSS")
    answer = send()
    assert answer.status_code == 201, answer.text
    with client.stream("GET", f"{PATH}/{answer.json()['file_id']}") as stream:
        for received, expected in zip(stream.iter_raw(MIB), large_content(), strict=True):
            assert received == expected
    assert memory(served, "VmHWM") - before < 40 * MIB


def memory(served: Served, field: str) -> int:
    """Bytes of memory that the server has (`VmRSS`) or had at most (`VmHWM`)."""
    status = Path(f"/proc/{served.pid}/status").read_text(encoding="ascii")
    return 1024 * int(status.split(f"{field}:")[1].split()[0])
