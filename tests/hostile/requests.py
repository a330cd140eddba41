"""Hostile requests to a real server: `python -m tests.hostile.requests --count 10000 --seed 1`.

Each goes over a connection of its own, to the command with our protocol, and to the same API under uvicorn with h11 and
with httptools, on each store. Every one must be answered or closed in time, and none with a status of 5xx; two in each
thousand are ordinary chats, which must succeed. In the end a chat and a probe must be answered, and the log must hold
no traceback. The command prints what it counted and each failure, and ends with status 1 if there was one.
"""

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

from tests.hostile.api_requests import API, KEY, Attack, Route, attack, good_chat, routes_of
from tests.hostile.http_parsers import NOT_SUPPORTED
from tests.hostile.servers import OURS, PROTOCOLS, serve
from tests.serving import Served

WITHIN = 10.0
"""Seconds within which the server has to answer or close, after the client has sent all and then its end."""
PATIENCE = 0.5
"""Seconds for which the client waits for an answer before it ends its side."""
AT_ONCE = 16
CONTROL_EVERY = 500
STORES = ("memory", "sqlite", "postgresql")
UVICORNS_OWN = (
    "LocalProtocolError",
    "Exception in ASGI application",
    "ASGI callable returned without completing handshake",
)
"""What uvicorn's protocols log of themselves. They answer faulty bytes behind a request before the app has answered
that, and call its answer an error; the exceptions of an app are seen by their own lines."""
# websockets before 17 fails to encode its refusal of a faulty subprotocol. No exception of an app ends in its files.
_REFUSAL_OF_WEBSOCKETS = re.compile(
    r'(?<=websockets/server\.py", line )\d+, in reject\n(?: .*\n)+UnicodeEncodeError: .*\n',
)

_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[\t\x20-\x7e\x80-\xff]*")

_COMPLAINT = re.compile(r"(?: ERROR | CRITICAL |^ERROR:|^CRITICAL:|^[ |]*[A-Za-z_.]*(?:Error|Exception)\b)")
_ADDRESS = re.compile(r"0x[0-9a-f]+|^[0-9-]+T[0-9:.]+Z|request_id=[0-9a-f-]+")


class Report:
    """What became of all requests to one server."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.sent = 0
        self.controls = 0
        self.statuses: Counter[int] = Counter()
        self.closed = 0
        self.wrong: list[str] = []

    def __str__(self) -> str:
        answers = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.server}: {self.sent} hostile requests and {self.controls} controls; answers {answers}; "
            f"closed without one: {self.closed}; failures: {len(self.wrong)}"
        )


class Answers:
    """What a server wrote on a connection: the statuses but 100, and whether the last answer is there whole."""

    def __init__(self, data: bytes) -> None:
        self.statuses: list[int] = []
        self.continued = False
        self.whole = False
        self.odd_field = b""
        self.body = b""
        while found := _STATUS.match(data):
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                self.whole = False
                return
            status = int(found[1])
            lines = head.split(b"\r\n")[1:]
            self.odd_field = self.odd_field or next((line for line in lines if not _is_sound(line)), b"")
            if status == 100:
                self.continued = True
                data = rest
                continue
            self.statuses.append(status)
            if status == 101:
                self.whole = True
                return
            self.body, self.whole, data = _body_of(lines, status, rest)


def _is_sound(line: bytes) -> bool:
    return _FIELD.fullmatch(line) is not None and not line.startswith(b"x-injected")


def _body_of(lines: Sequence[bytes], status: int, data: bytes) -> tuple[bytes, bool, bytes]:
    """The body of an answer, whether it is whole, and what follows it. An answer to HEAD looks as if it were cut."""
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    if status in (204, 304):
        return b"", True, data
    if fields.get(b"transfer-encoding") == b"chunked":
        end = data.find(b"0\r\n\r\n")
        return (data, False, b"") if end < 0 else (data[:end], True, data[end + 5 :])
    if b"content-length" in fields:
        length = int(fields[b"content-length"])
        return data[:length], len(data) >= length, data[length:]
    return data, False, b""


async def talk(port: int, data: bytes, patience: float = PATIENCE) -> tuple[bytes, bool]:
    """Send `data`, and return what the server wrote until the answer was whole or it closed, and whether in time."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return b"", False
    read = bytearray()
    in_time = True
    try:
        with suppress(ConnectionError):
            writer.write(data)
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    if await _read(reader, read):
                        return bytes(read), True
            writer.write_eof()
            async with asyncio.timeout(WITHIN):
                await _read(reader, read)
    except TimeoutError:
        in_time = False
    finally:
        writer.transport.abort()
    return bytes(read), in_time


async def _read(reader: asyncio.StreamReader, read: bytearray) -> bool:
    """Read on until an answer is whole or the connection ends."""
    while data := await reader.read(65_536):
        read += data
        answers = Answers(bytes(read))
        if answers.whole and answers.statuses != [101]:
            return True
    return True


async def assault(served: Served, name: str, count: int, seed: int) -> Report:
    """Send `count` attacks to a server, and return what became of them."""
    report = Report(name)
    with served.client(headers={"authorization": f"Bearer {KEY}"}) as client:
        routes, ids = _learn(client)
    numbers = iter(range(count))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(send_all(served.port, report, numbers, seed, routes, ids))
    await _finish(served, report)
    return report


def _learn(client: httpx.Client) -> tuple[list[Route], list[str]]:
    """The server's routes, and the identifiers of a thread and of a run."""
    answer = client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
    begun = client.post("/api/v1/runs", json={"contact_id": "ann", "message": "hi"})
    return routes_of(client.get("/openapi.json").json()), [answer.json()["thread_id"], begun.json()["run_id"]]


async def send_all(
    port: int, report: Report, numbers: Iterator[int], seed: int, routes: Sequence[Route], ids: Sequence[str]
) -> None:
    for number in numbers:
        if number % CONTROL_EVERY == 0:
            await _control(port, report, number)
        sent = attack(seed, number, routes, ids)
        report.sent += 1
        if wrong := judge(sent, *await talk(port, sent.data), report):
            report.wrong.append(f"{report.server}, {sent.kind} {number}: {wrong}: {sent.data[:300]!r}")


async def _control(port: int, report: Report, number: int) -> None:
    report.controls += 1
    # If the client ended its side, the server would take it for one that has left.
    answers = Answers((await talk(port, good_chat(number), patience=WITHIN))[0])
    if answers.statuses != [200] or b"You said: control %d" % number not in answers.body:
        report.wrong.append(f"{report.server}: control {number} got {answers.statuses} {answers.body[:200]!r}")


def judge(sent: Attack, read: bytes, in_time: bool, report: Report) -> str:
    """Count what was read after an attack. Returns what is wrong with it, or ""."""
    answers = Answers(read)
    report.statuses.update(answers.statuses)
    report.closed += not answers.statuses
    if not in_time:
        return f"not closed in time, after {read[:100]!r}"
    if any(status >= 500 and not _is_expected(status, sent, report) for status in answers.statuses):
        return f"answered {answers.statuses}"
    if answers.odd_field:
        return f"an odd field in the answer: {answers.odd_field!r}"
    if sent.kind == API and read and not (answers.statuses or answers.continued):
        return f"no HTTP came back: {read[:100]!r}"
    return ""


def _is_expected(status: int, sent: Attack, report: Report) -> bool:
    """Whether a status of 5xx is right.

    Ours refuses other versions and codings by them. uvicorn's protocols take a handshake with two Connection fields for
    a request; the app then has to believe that the server knows no WebSockets.
    """
    if report.server.startswith(OURS):
        return status in NOT_SUPPORTED and (b"HTTP/" in sent.data or b"ransfer-" in sent.data)
    return status == 501 and b"upgrade: websocket" in sent.data


async def _finish(served: Served, report: Report) -> None:
    """See that the server still works and has not complained of itself."""
    await _control(served.port, report, -1)
    probe, in_time = await talk(served.port, b"GET /healthz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
    if not in_time or Answers(probe).statuses != [200]:
        report.wrong.append(f"{report.server}: the probe got {probe!r}")
    if served.process is None or served.process.poll() is not None:
        report.wrong.append(f"{report.server}: the process has ended")
    found = complaints(served.stderr) if report.server.startswith(OURS) else complaints_of_app(served.stderr)
    for complaint, count in found.items():
        report.wrong.append(f"{report.server}: the log has {count} times: {complaint}")


def complaints(log: str) -> Counter[str]:
    """What a server's log holds of errors: lines of that level and the exceptions that tracebacks end with."""
    lines = [_ADDRESS.sub("0x…", line) for line in log.splitlines()]
    return Counter(line[:300] for line in lines if _COMPLAINT.search(line))


def complaints_of_app(log: str) -> Counter[str]:
    """The same without those of uvicorn's protocols."""
    found = complaints(_REFUSAL_OF_WEBSOCKETS.sub("\n", log))
    return Counter({line: count for line, count in found.items() if not any(own in line for own in UVICORNS_OWN)})


@contextmanager
def store_url(kind: str) -> Iterator[str]:
    """An empty store of this kind. PostgreSQL needs the environment of the plugins."""
    if kind == "memory":
        yield "memory:"
    elif kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'hostile.db'}"
    else:
        sys.path.append(str(Path(__file__).parents[2] / "plugins" / "jimsapi-postgres" / "tests"))
        from database import Postgres  # type: ignore[import-not-found] # within reach only now, and only with its plugin

        with Postgres(fsync="off") as server:
            yield server.url()


def main() -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.requests", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000, help="requests to each server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", action="append", choices=STORES, help="memory and sqlite unless named")
    parser.add_argument("--http", action="append", choices=PROTOCOLS, help="all unless named")
    options = parser.parse_args()
    failures = 0
    for store in options.store or STORES[:2]:
        for http in options.http or PROTOCOLS:
            began = time.monotonic()
            with ExitStack() as stack:
                served = stack.enter_context(serve(http, stack.enter_context(store_url(store))))
                report = asyncio.run(assault(served, f"{http} on {store}", options.count, options.seed))
            print(f"{report} ({time.monotonic() - began:.0f} s)", *report.wrong, sep="\n  ", flush=True)
            failures += len(report.wrong)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
