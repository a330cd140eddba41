"""How deep JSON nests, by its text."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimsapi.asgi.nesting import nesting_depth

TEXTS = st.text('[]{}"\\,: a\n', max_size=6)
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


def levels(value: Any) -> int:
    """The levels of a value, counted by hand."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(levels, value.values() if isinstance(value, dict) else value), default=0)


@given(VALUES, st.sampled_from([0, orjson.OPT_INDENT_2]))
def test_the_text_of_a_value_nests_as_the_value(value: Any, option: int) -> None:
    assert nesting_depth(orjson.dumps(value, option=option)) == levels(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", 0),
        (b"[" * 1_000_000, 1_000_000),
        (b'{"a":' * 300 + b"1", 300),
        (b"]]][[", 0),
        (b'["[[[', 1),
        (b'"' * 1_000_001 + b"[", 0),
        (b'"\\' * 500_000 + b"[", 0),
        (b'["a\\\\",["[","\\"[["]]', 2),
    ],
)
def test_a_text_that_is_no_json_is_counted_too(text: bytes, expected: int) -> None:
    assert nesting_depth(text) == expected
