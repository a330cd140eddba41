"""What fails until the protocol refuses requests without one Host field, other versions and unknown codings.

Once it does, the cases of `framing_unmended` go to `framing`, and this test to test_framing.py.
"""

import asyncio

from tests.hostile.framing import compare

MADE = 4_000


def test_made_strings_are_taken_as_h11_and_llhttp_take_them_or_refused() -> None:
    tally = asyncio.run(compare(MADE, seed=12))
    assert tally.wrong == []
    assert tally.requests > MADE / 4  # a parser that refuses all would be right, too
    assert tally.refusals[400] > MADE / 4
