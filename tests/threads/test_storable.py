"""One rule says what JSON may be stored, whatever the store."""

import sys
import tracemalloc
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimsapi.asgi.nesting import MAX_NESTING
from jimsapi.threads.storable import Unstorable, dump_storable

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcü\\\"u0"), inner),
    max_leaves=20,
)  # fmt: skip


@given(_json)
def test_ordinary_json_comes_back_as_it_was(value: Any) -> None:
    assert orjson.loads(dump_storable(value)) == value


def _nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_nesting_is_taken_to_its_limit_and_not_beyond() -> None:
    assert orjson.loads(dump_storable(_nested(MAX_NESTING))) == _nested(MAX_NESTING)
    for levels in (MAX_NESTING + 1, 250, 300, 5000):
        with pytest.raises(Unstorable):
            dump_storable(_nested(levels))


def test_breadth_is_not_nesting() -> None:
    dump_storable([[] for _ in range(1000)])
    dump_storable("[" * 1000)


@pytest.mark.parametrize("value", ["\0", "a\0b", "\\\0", ["x", {"a": "\0"}], {"\0": 1}, "\\\\\0"])
def test_a_nul_is_refused(value: Any) -> None:
    with pytest.raises(Unstorable, match="NUL"):
        dump_storable(value)


@pytest.mark.parametrize("value", ["\\u0000", "\\\\u0000", {"\\u0000": "u0000"}, "\u0001"])
def test_what_only_looks_like_a_nul_is_taken(value: Any) -> None:
    assert orjson.loads(dump_storable(value)) == value


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, 2**64, -(2**63) - 1, object(), {1, 2}, b"bytes"])
def test_what_json_or_a_store_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(Unstorable) as refused:
        dump_storable({"a": [value]})
    str(refused.value).encode()


def test_keys_that_are_no_strings_become_strings() -> None:
    value = {7: "a", UUID(int=1): "b", date(2025, 3, 1): "c", None: "d", True: "e"}
    assert orjson.loads(dump_storable(value)) == {
        "7": "a", str(UUID(int=1)): "b", "2025-03-01": "c", "null": "d", "true": "e",
    }  # fmt: skip


class Point(NamedTuple):
    x: int
    y: int


def test_named_tuples_become_arrays() -> None:
    assert orjson.loads(dump_storable({"at": [Point(1, 2)]})) == {"at": [[1, 2]]}


def test_what_is_stored_takes_no_more_memory_than_its_text() -> None:
    texts = [{"content": f"{number:04}" * 1000} for number in range(100)]
    dump_storable(texts[0])
    tracemalloc.start()
    try:
        kept = [dump_storable(text) for text in texts]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1.1 * sum(map(sys.getsizeof, kept))
