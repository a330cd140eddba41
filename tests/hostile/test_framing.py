"""The command's HTTP/1.1 beside h11 and llhttp: kept strings."""

import asyncio
from random import Random

import pytest

from tests.hostile import cases
from tests.hostile.cases import Case
from tests.hostile.framing import Judge, laxer
from tests.hostile.http_parsers import Reading, Taken, read_with_h11
from tests.hostile.http_strings import CANARY

KEPT = cases.read("framing")


@pytest.mark.parametrize("case", KEPT, ids=[case.name for case in KEPT])
def test_a_kept_string_is_taken_as_h11_and_llhttp_take_it_or_refused_and_the_same_in_pieces(case: Case) -> None:
    async def judge() -> list[str]:
        judge = Judge()
        random = [(await judge.judge(case.data, Random(seed))).wrong for seed in range(20)]
        return [*random, await judge.judge_every_split(case.data)]

    assert set(asyncio.run(judge())) == {""}


def test_what_others_do_not_take_or_take_otherwise_is_a_difference() -> None:
    def reading(*requests: Taken) -> Reading:
        return Reading(list(requests))

    get = Taken(b"GET", b"/a", ((b"host", b"a"),), b"", True)
    post = Taken(b"POST", b"/a", ((b"host", b"a"),), b"abc", True)
    assert laxer(reading(get), reading(get, post)) == ""
    assert laxer(reading(get), reading()) == "request 1 is taken by ours alone"
    assert laxer(reading(get), reading(post)) == "request 1 has another method or other fields"
    assert laxer(reading(get), reading(Taken(b"GET", b"/b", get.fields, b"", True))) == "request 1 has another target"
    longer = Taken(b"POST", b"/a", post.fields, b"abcd", True)
    assert laxer(reading(post), reading(longer)) == "request 1 has another body"
    assert laxer(reading(post), reading(Taken(b"POST", b"/a", post.fields, b"abc", False))) != ""
    assert laxer(reading(Taken(b"POST", b"/a", post.fields, b"ab", False)), reading(longer)) == ""


def test_h11_reads_requests_one_after_another() -> None:
    reading = read_with_h11(CANARY + b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab" + CANARY + b"rest")
    assert [(request.method, request.body) for request in reading.requests] == [
        (b"GET", b""),
        (b"POST", b"ab"),
        (b"GET", b""),
    ]
    assert not reading.ended


def test_a_case_is_read_as_it_was_written(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "FOLDER", tmp_path)
    data = bytes(range(256)) + b"\\x41'\"#\r\n# no comment\r\n" * 20
    cases.write(Case("odd", "All bytes.\nTwice.", data), "some")
    assert cases.read("some") == [Case("odd", "All bytes. Twice.", data)]
