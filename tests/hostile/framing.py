"""Our HTTP/1.1 beside h11 and llhttp on the same bytes: `python -m tests.hostile.framing --count 1000000 --seed 1`.

Ours may refuse what the others take, and nothing else may differ: a request that ours takes is one of theirs, with the
same method, target, fields and body, and the next begins where theirs does. The same bytes in other pieces give the
same requests, and no string makes a fault: an exception, an answer of 5xx, a connection that hangs. The command prints
what it counted, each difference in its shortest form, and ends with status 1 if there was one.
"""

import argparse
import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit

from jimsapi.server.http1 import Http1Protocol
from tests.hostile.cases import Case, write
from tests.hostile.http_parsers import AsgiReader, Reading, Taken, read_with_h11, read_with_llhttp
from tests.hostile.http_strings import http_string, split

SHOWN = 20
"""Differences that the command prints."""

_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")

Check = Callable[[bytes], Awaitable[str]]
"""What is wrong with the reading of a string, or ""."""


class Judgement(NamedTuple):
    """What became of a string: how ours read it, and what is wrong with that, or ""."""

    reading: Reading
    wrong: str


class Judge:
    """Reads strings with ours and compares."""

    def __init__(self) -> None:
        self._ours = AsgiReader(Http1Protocol)

    async def judge(self, data: bytes, random: Random) -> Judgement:
        """Compare the string as a whole, split at random, and with an app that answers before it has read a body."""
        whole = await self._ours.read([data])
        wrong = "; ".join(whole.faults) or _beside_others(whole, data)
        if not wrong:
            pieces = await self._ours.read(split(random, data))
            wrong = "; ".join(pieces.faults) or _apart(whole, pieces)
        if not wrong and whole.requests:
            early = await self._ours.read(split(random, data), reads_bodies=False)
            wrong = "; ".join(early.faults) or _beside_others(early, data, bodies=False)
        return Judgement(whole, wrong)

    async def judge_every_split(self, data: bytes) -> str:
        """What differs if the string is cut at any one position, or byte by byte; "" if nothing does."""
        whole = await self._ours.read([data])
        cuts = [[data[:at], data[at:]] for at in range(1, len(data))]
        for pieces in [*cuts, [data[at : at + 1] for at in range(len(data))]]:
            reading = await self._ours.read(pieces)
            if wrong := "; ".join(reading.faults) or _apart(whole, reading):
                return f"in pieces of {[len(piece) for piece in pieces]} bytes: {wrong}"
        return ""


def _beside_others(ours: Reading, data: bytes, bodies: bool = True) -> str:
    for name, reading in (("h11", read_with_h11(data)), ("llhttp", read_with_llhttp(data))):
        if wrong := laxer(ours, reading, bodies):
            return f"beside {name}: {wrong}"
    return ""


def laxer(ours: Reading, other: Reading, bodies: bool = True) -> str:
    """Where ours takes what the other does not, in words; "" if it nowhere does. Without `bodies` only heads count."""
    for number, request in enumerate(ours.requests, 1):
        if number > len(other.requests):
            if other.upgraded:
                return ""
            return f"request {number} is taken by ours alone"
        theirs = other.requests[number - 1]
        if (request.method, request.fields) != (theirs.method, theirs.fields):
            return f"request {number} has another method or other fields"
        if request.target != as_served(theirs.target):
            return f"request {number} has another target"
        if bodies and not (other.upgraded and theirs is other.requests[-1]) and not _same_body(request, theirs):
            return f"request {number} has another body"
    return ""


def _same_body(ours: Taken, theirs: Taken) -> bool:
    if not ours.whole:
        return ours.body.startswith(theirs.body) or theirs.body.startswith(ours.body)
    return theirs.whole and ours.body == theirs.body


def as_served(target: bytes) -> bytes:
    """A target as ASGI has it: path and query, without scheme, authority, fragment or an empty query.

    RFC 9112, 3.2.2 has every server take the absolute form. A fragment belongs into no target; ours cuts it off, as
    uvicorn does, and no parser frames a message by it.
    """
    if _SCHEME.match(target):
        parts = urlsplit(target)
        path, query = parts.path or b"/", parts.query
    else:
        path, _, query = target.partition(b"#")[0].partition(b"?")
    return path + (b"?" + query if query else b"")


def _apart(whole: Reading, pieces: Reading) -> str:
    """How two readings of one string differ. A request whose body turns out to be faulty may have reached the app or
    not, for that depends on when its head came: the app is told that the rest will not come."""
    if _whole_requests(whole) != _whole_requests(pieces):
        return "other requests if the bytes come in pieces"
    heads, others = ([(request.method, request.target, request.fields) for request in reading.requests]
                     for reading in (whole, pieces))  # fmt: skip
    if heads != others and not (whole.ended and heads[: len(others)] == others[: len(heads)]):
        return "other heads if the bytes come in pieces"
    if whole.ended != pieces.ended:
        return "the connection ends in pieces only" if pieces.ended else "the connection ends as a whole only"
    return ""


def _whole_requests(reading: Reading) -> list[Taken]:
    return [request for request in reading.requests if request.whole]


async def shortest(data: bytes, check: Check) -> bytes:
    """A short string with which the same is wrong: parts are left out as long as that keeps it so."""
    wrong = await check(data)
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if await check(shorter) == wrong:
                data = shorter
            else:
                at += size
        size //= 2
    return data


class Tally:
    """What a run of the command has seen."""

    def __init__(self) -> None:
        self.strings = 0
        self.bytes = 0
        self.refusals: Counter[int] = Counter()
        self.requests = 0
        self.wrong: list[tuple[int, str, bytes]] = []

    def add(self, data: bytes, reading: Reading) -> None:
        self.strings += 1
        self.bytes += len(data)
        self.refusals[reading.refusal] += 1
        self.requests += sum(request.whole for request in reading.requests)

    def __str__(self) -> str:
        refused = ", ".join(f"{status}: {count}" for status, count in sorted(self.refusals.items()) if status)
        return (
            f"{self.strings} strings of {self.bytes} bytes; {self.requests} requests taken whole; "
            f"connections refused with {refused or 'nothing'}; strings with a difference: {len(self.wrong)}"
        )


async def compare(count: int, seed: int, first: int = 0) -> Tally:
    """Compare `count` strings of a seed, from number `first` on."""
    judge, tally = Judge(), Tally()
    for number in range(first, first + count):
        data = http_string(seed, number)
        judgement = await judge.judge(data, Random(number))
        tally.add(data, judgement.reading)
        if judgement.wrong:
            tally.wrong.append((number, judgement.wrong, data))
    return tally


async def _shortest_of(number: int, data: bytes) -> bytes:
    judge = Judge()

    async def check(tried: bytes) -> str:
        return (await judge.judge(tried, Random(number))).wrong

    return await shortest(data, check)


async def _main(count: int, seed: int, first: int, keep: str | None) -> int:
    began = time.monotonic()
    tally = await compare(count, seed, first)
    print(f"{tally} ({time.monotonic() - began:.0f} s)")
    kinds: dict[str, tuple[int, bytes]] = {}
    for number, wrong, data in tally.wrong:
        kinds.setdefault(wrong, (number, data))
    for wrong, (number, data) in list(kinds.items())[:SHOWN]:
        short = await _shortest_of(number, data)
        print(f"string {number}: {wrong}\n  {short!r}")
        if keep:
            print(f"  kept as {write(Case(f'found-{seed}-{number}', wrong, short), keep)}")
    return 1 if tally.wrong else 0


def main() -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.framing", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="strings to compare")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first string, to repeat one alone")
    parser.add_argument(
        "--keep", metavar="FOLDER", help="write each difference into this folder of tests/hostile/cases"
    )
    options = parser.parse_args()
    return asyncio.run(_main(options.count, options.seed, options.first, options.keep))


if __name__ == "__main__":
    sys.exit(main())
