"""The digests by which two stores are compared: they are equal for equal contents, and differ for all others."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from jimsapi.testing.store.transfers import foreign_thread, sample_records
from jimsapi.threads.event import TICK
from jimsapi.threads.facts import ThreadFacts
from jimsapi.threads.ids import uuid7
from jimsapi.threads.transfer import canonical_json, digest_record, digest_thread


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"b":1,"a":[2]}', b' {"a": [2.0], "b": 1} '),
        ("1e2", "100"),
        ("-0", "0"),
        ("1.50", "1.5"),
        ("100000000000000000000", "1e20"),
        ("-5", "-5.0"),
        ("0.001", "1e-3"),
        ('"\\u00e9"', '"é"'),
        ('{"a":1,"a":2}', '{"a":2}'),
        (None, None),
    ],
)
def test_texts_of_equal_values_are_equal(one: Any, other: Any) -> None:
    assert canonical_json(one) == canonical_json(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "2"),
        ("1", "-1"),
        ("1", "10"),
        ("1", '"1"'),
        ("0.1", "0.01"),
        ("1e5", "1e6"),
        ("null", None),
        ("[1,2]", "[2,1]"),
        ("123456789012345678", "123456789012345679"),
        ("0.12345678901234567890", "0.12345678901234567891"),
        ("NaN", "Infinity"),
        ("{", "{ "),
        ('"\\ud800"', '"\\ud801"'),
    ],
)
def test_texts_of_other_values_are_not_equal(one: Any, other: Any) -> None:
    assert canonical_json(one) != canonical_json(other)


def test_a_digest_covers_everything_of_a_thread() -> None:
    whole = foreign_thread()
    digests = {digest_thread(whole)}
    assert digest_thread(msgspec.structs.replace(whole, events=list(reversed(whole.events)))) in digests
    changes = [
        *_changes(whole, thread_id=uuid7(), contact_id=None, external_id="", created_at=whole.created_at + TICK),
        *_changes(whole, thread_config=b"{}", facts=ThreadFacts(), events=[], runs=[], feedback=[], usage=[]),
    ]
    for name in ("events", "runs", "feedback", "usage"):
        first, *others = getattr(whole, name)
        changes += _changes(whole, **{name: others})
        for field in first.__struct_fields__:
            changed = msgspec.structs.replace(first, **{field: _other(getattr(first, field))})
            changes += _changes(whole, **{name: [changed, *others]})
    for field in whole.facts.__struct_fields__:
        facts = msgspec.structs.replace(whole.facts, **{field: None if field != "metadata" else b"[]"})
        changes += _changes(whole, facts=facts)
    for thread in changes:
        digest = digest_thread(thread)
        assert digest not in digests
        digests.add(digest)


def test_a_digest_covers_everything_of_a_record() -> None:
    for records in sample_records().values():
        digests = {digest_record(record) for record in records}
        assert len(digests) == len(records)
        for field in records[0].__struct_fields__:
            changed = msgspec.structs.replace(records[0], **{field: _other(getattr(records[0], field))})
            assert digest_record(changed) not in digests


def _changes(whole: Any, **fields: Any) -> list[Any]:
    return [msgspec.structs.replace(whole, **{name: value}) for name, value in fields.items()]


def _other(value: Any) -> Any:
    """Return another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case bytes():
            return b'"another"'
        case str():
            return "another"
        case None:
            return "a value"
        case msgspec.Struct():
            field = value.__struct_fields__[0]
            return msgspec.structs.replace(value, **{field: _other(getattr(value, field))})
    try:
        return value + timedelta(days=7)
    except TypeError:
        return uuid7()
