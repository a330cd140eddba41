"""Strings made at random of HTTP/1.1's grammar and of known tricks: our protocol beside h11 and llhttp."""

import asyncio

from tests.hostile.framing import compare

MADE = 4_000


def test_made_strings_are_taken_as_h11_and_llhttp_take_them_or_refused() -> None:
    tally = asyncio.run(compare(MADE, seed=12))
    assert tally.wrong == []
    assert tally.requests > MADE / 4  # a parser that refuses all would be right, too
    assert tally.refusals[400] > MADE / 4
