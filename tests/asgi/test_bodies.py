"""What of JSON is taken, and how a 422 says what is wrong. The answers are FastAPI's, tried on the real one."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimsapi.asgi import JSONResponse, ValidationError
from jimsapi.asgi.body import decode_json
from jimsapi.asgi.fields import QueryParams
from jimsapi.asgi.validation import convert_body, convert_query

Meta = msgspec.Meta
THE_ID = "0192b5f2-2c03-7b91-9c6c-9a1234567890"


class Person(msgspec.Struct):
    name: str


class Chat(msgspec.Struct):
    contact_id: str
    message: str
    thread_id: UUID | None = None
    config: dict[str, Any] = msgspec.field(default_factory=lambda: {"interface": "api"})
    start: bool = False
    people: list[Person] = []
    kind: Literal["a", "b"] = "a"


class Limits(msgspec.Struct):
    size: Annotated[int, Meta(ge=1, lt=100)] = 1
    even: Annotated[int, Meta(multiple_of=2)] = 2
    share: Annotated[float, Meta(gt=0, le=1)] = 1
    text: Annotated[str, Meta(min_length=1, max_length=3, pattern="^a*$")] = "a"
    items: Annotated[list[int], Meta(min_length=1, max_length=2)] = msgspec.field(default_factory=lambda: [1])
    table: Annotated[dict[str, int], Meta(min_length=1, max_length=1)] = msgspec.field(default_factory=lambda: {"a": 1})
    either: int | str | None = None
    nothing: None = None


GOOD = {"contact_id": "c", "message": "m"}


def refused(raw: bytes) -> list[dict[str, Any]]:
    with pytest.raises(ValidationError) as caught:
        decode_json(raw)
    return caught.value.faults


def faults_of(value: Any, model: type[msgspec.Struct] = Chat) -> list[dict[str, Any]]:
    with pytest.raises(ValidationError) as caught:
        convert_body(value, model)
    return caught.value.faults


def query_faults(query: bytes, model: type[msgspec.Struct]) -> list[dict[str, Any]]:
    with pytest.raises(ValidationError) as caught:
        convert_query(QueryParams(query), model)
    return caught.value.faults


def nested(depth: int) -> bytes:
    return b'{"config":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


# JSON.


@pytest.mark.parametrize(
    "raw", [b'{"a":1,}', b"{", b"[1,2", b'{"a" 1}', b'"\n"', b"nul", b'{"\xc3\xa9": x}', b"1 2", b" ", b"\x00"]
)
def test_broken_json_is_placed_and_named_as_the_standard_library_does(raw: bytes) -> None:
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(raw.decode())
    assert refused(raw) == [
        {
            "type": "json_invalid",
            "loc": ["body", expected.value.pos],
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": expected.value.msg},
        }
    ]


@pytest.mark.parametrize(
    "raw",
    [
        b'"\\ud800"',
        b'"a\\udc00b"',
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"[Infinity]",
        b'"\xff"',
        "{}".encode("utf-16"),
        b"1e999",
    ],
)
def test_what_only_the_standard_library_would_take_is_no_json(raw: bytes) -> None:
    [fault] = refused(raw)
    assert fault["type"] == "json_invalid"
    assert fault["ctx"]["error"]
    assert ": line " not in fault["ctx"]["error"]


def test_nesting_is_taken_up_to_200_and_refused_with_its_place_beyond() -> None:
    assert decode_json(nested(200))
    [fault] = refused(nested(201))
    assert (fault["type"], fault["loc"]) == ("nesting_too_deep", ["body", "config", *[0] * 199])


@pytest.mark.parametrize("depth", [1025, 5000, 300_000])
def test_nesting_that_no_parser_would_follow_is_refused_alike(depth: int) -> None:
    [fault] = refused(nested(depth))
    assert (fault["type"], fault["loc"][:3], len(fault["loc"])) == ("nesting_too_deep", ["body", "config", 0], 201)


def test_the_place_of_deep_nesting_is_followed_through_keys_and_items() -> None:
    raw = b'{"a":[[],{"x":1}],"b\\"[":[1,"[[[",{"c":' + b'{"d":[' * 150 + b"]}" * 150 + b"}]}"
    [fault] = refused(raw)
    assert fault["loc"][:6] == ["body", 'b"[', 2, "c", "d", 0]


def test_many_brackets_side_by_side_or_in_text_are_no_nesting() -> None:
    assert decode_json(b"[" + b"[]," * 5000 + b"[]]")
    assert decode_json(orjson.dumps({"message": "[{" * 5000 + '\\"'}))


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 10**18])
def test_integers_of_64_bits_are_taken_exactly(number: int) -> None:
    assert decode_json(str(number).encode()) == number


@pytest.mark.parametrize("number", [str(2**64), str(-(2**63) - 1), "9" * 400, "9" * 5000, "-" + "9" * 100_000])
def test_integers_beyond_64_bits_are_refused_with_their_place(number: str) -> None:
    raw = b'{"a":[0,{"b":' + number.encode() + b"}]}"
    [fault] = refused(raw)
    assert (fault["type"], fault["loc"]) == ("integer_out_of_range", ["body", "a", 1, "b"])


def test_long_digits_in_text_and_fractions_are_no_integers() -> None:
    assert decode_json(b'{"card":"12345678901234567890123","x":0.1234567890123456789012}')


@pytest.mark.parametrize(
    ("raw", "loc"),
    [
        (b'{"message":"a\\u0000b"}', ["body", "message"]),
        (b'{"config":{"a":[1,"\\u0000"]}}', ["body", "config", "a", 1]),
        (b'{"config":{"k\\u0000":1}}', ["body", "config", "k\0"]),
    ],
)
def test_nul_is_refused_in_any_text_or_key(raw: bytes, loc: list[Any]) -> None:
    [fault] = refused(raw)
    assert (fault["type"], fault["loc"]) == ("string_contains_nul", loc)


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert decode_json(b'"\\\\u0000"') == "\\u0000"


def test_all_that_no_store_keeps_is_listed_at_once() -> None:
    faults = refused(b'{"a":"\\u0000","b":18446744073709551616,"c":["\\u0000"]}')
    assert sorted(str(fault["loc"]) for fault in faults) == ["['body', 'a']", "['body', 'b']", "['body', 'c', 0]"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_other_json_comes_out_as_it_went_in(value: Any) -> None:
    raw = json.dumps(value).encode()
    if "\\u0000" in raw.decode().replace("\\\\", "") or "Infinity" in raw.decode() or "\\ud" in raw.decode():
        return
    assert decode_json(raw) == value


@given(st.binary() | st.text(alphabet='[]{}",:\\u0019 ').map(str.encode))
def test_no_bytes_lead_to_anything_but_a_value_or_a_422(raw: bytes) -> None:
    try:
        decode_json(raw)
    except ValidationError as error:
        JSONResponse({"detail": error.faults})


# Models: the answers that clients rely on.


def test_a_good_body_becomes_the_model_with_its_defaults_and_without_extras() -> None:
    chat = convert_body({**GOOD, "extra": 1}, Chat)
    assert chat == Chat("c", "m", None, {"interface": "api"}, False, [], "a")
    assert convert_body({"contact_id": "", "message": ""}, Chat).message == ""


class Plain(msgspec.Struct):
    text: str


class Tagged(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    text: str


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    parts: list["Strict"] = []


def test_unknown_fields_are_refused_where_the_model_forbids_them() -> None:
    body = {"text": "a", "x": 1, "parts": [{"text": "b"}, {"text": "c", "y": None}]}
    with pytest.raises(ValidationError) as caught:
        convert_body(body, Strict)
    refused = {"type": "extra_forbidden", "msg": "Extra inputs are not permitted"}
    assert caught.value.faults == [
        {**refused, "loc": ["body", "parts", 1, "y"], "input": None},
        {**refused, "loc": ["body", "x"], "input": 1},
    ]
    assert query_faults(b"text=a&x=1&x=2", Strict) == [{**refused, "loc": ["query", "x"], "input": "2"}]
    assert convert_query(QueryParams(b"text=a&parts="), Plain) == Plain("a")
    assert convert_query(QueryParams(b"text=a&type=Tagged"), Tagged) == Tagged("a")


@pytest.mark.parametrize("value", [[], None, 5, "x", True])
def test_a_body_that_is_no_object_says_so(value: Any) -> None:
    assert faults_of(value) == [
        {
            "type": "model_attributes_type",
            "loc": ["body"],
            "msg": "Input should be a valid dictionary or object to extract fields from",
            "input": value,
        }
    ]


def test_every_fault_is_listed_in_the_order_of_the_fields() -> None:
    body = {"contact_id": 1, "thread_id": 5, "config": [], "start": [], "people": [{"name": 1}, 5, {}], "kind": "c"}
    assert faults_of(body) == [
        {"type": "string_type", "loc": ["body", "contact_id"], "msg": "Input should be a valid string", "input": 1},
        {"type": "missing", "loc": ["body", "message"], "msg": "Field required", "input": body},
        {
            "type": "uuid_type",
            "loc": ["body", "thread_id"],
            "msg": "UUID input should be a string, bytes or UUID object",
            "input": 5,
        },
        {"type": "dict_type", "loc": ["body", "config"], "msg": "Input should be a valid dictionary", "input": []},
        {"type": "bool_type", "loc": ["body", "start"], "msg": "Input should be a valid boolean", "input": []},
        {
            "type": "string_type",
            "loc": ["body", "people", 0, "name"],
            "msg": "Input should be a valid string",
            "input": 1,
        },
        {
            "type": "model_attributes_type",
            "loc": ["body", "people", 1],
            "msg": "Input should be a valid dictionary or object to extract fields from",
            "input": 5,
        },
        {"type": "missing", "loc": ["body", "people", 2, "name"], "msg": "Field required", "input": {}},
        {
            "type": "literal_error",
            "loc": ["body", "kind"],
            "msg": "Input should be 'a' or 'b'",
            "input": "c",
            "ctx": {"expected": "'a' or 'b'"},
        },
    ]


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        *[(text, True) for text in ("1", "on", "t", "true", "y", "yes", "YES", "True", "oN")],
        *[(text, False) for text in ("0", "off", "f", "false", "n", "no", "No", "FALSE")],
        (1, True),
        (0, False),
        (1.0, True),
        (0.0, False),
        (-0.0, False),
        (True, True),
    ],
)
def test_booleans_are_as_lax_as_pydantic_s(value: Any, meant: bool) -> None:
    assert convert_body({**GOOD, "start": value}, Chat).start is meant


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *[(text, "bool_parsing") for text in ("", "maybe", " yes", "1.0", "０")],
        *[(number, "bool_parsing") for number in (2, -1, 2.0)],
        *[(number, "bool_type") for number in (0.5, 10**30, 1e300)],
        (None, "bool_type"),
        ([], "bool_type"),
        ({}, "bool_type"),
    ],
)
def test_other_booleans_are_refused_as_pydantic_does(value: Any, kind: str) -> None:
    [fault] = faults_of({**GOOD, "start": value})
    assert (fault["type"], fault["loc"]) == (kind, ["body", "start"])


@pytest.mark.parametrize(
    "text", [THE_ID, THE_ID.upper(), THE_ID.replace("-", ""), f"{{{THE_ID}}}", f"urn:uuid:{THE_ID}"]
)
def test_uuids_are_as_lax_as_pydantic_s(text: str) -> None:
    assert convert_body({**GOOD, "thread_id": text}, Chat).thread_id == UUID(THE_ID)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "invalid length: found 0"),
        ("null", "invalid character: found `n` at 0"),
        (THE_ID + " ", "invalid character: found ` ` at 36"),
        (f"{{{THE_ID}", "invalid character: found `{` at 0"),
        (f"URN:UUID:{THE_ID}", "invalid character: found `U` at 0"),
        (f"{{{THE_ID.replace('-', '')}}}", "invalid group count: expected 5, found 1"),
        (THE_ID[1:], "invalid group length in group 0: expected 8, found 7"),
        (THE_ID[:-1], "invalid group length in group 4: expected 12, found 11"),
        ("1" * 33, "invalid length: found 33"),
        ("1" * 50, "invalid length: found 50"),
        (THE_ID.replace("-", "", 1), "invalid group count: expected 5, found 4"),
        ("1" * 36, "invalid group count: expected 5, found 1"),
        (f"{{{THE_ID[:-2]}}}", "invalid character: found `{` at 0"),
        (f"urn:uuid:{THE_ID[:27]}", "invalid character: found `u` at 0"),
        (f"{{{THE_ID[:-1]}g}}", "invalid character: found `g` at 35"),
        (f"{{{THE_ID[:-2]}g}}", "invalid character: found `g` at 35"),
        (f"urn:uuid:{THE_ID[:-1]}g", "invalid character: found `g` at 35"),
        (f"urn:uuid:{THE_ID[:-2]}g", "invalid character: found `g` at 43"),
    ],
)
def test_other_uuids_are_refused_as_pydantic_does(text: str, reason: str) -> None:
    assert faults_of({**GOOD, "thread_id": text}) == [
        {
            "type": "uuid_parsing",
            "loc": ["body", "thread_id"],
            "msg": f"Input should be a valid UUID, {reason}",
            "input": text,
            "ctx": {"error": reason},
        }
    ]


@pytest.mark.parametrize(
    ("value", "kind"), [("5", "int_type"), (5.0, "int_type"), (True, "int_type"), (None, "int_type")]
)
def test_numbers_in_a_body_are_strict(value: Any, kind: str) -> None:
    assert [fault["type"] for fault in faults_of({"size": value}, Limits)] == [kind]


@pytest.mark.parametrize(
    ("body", "kind", "message", "context"),
    [
        ({"size": 0}, "greater_than_equal", "Input should be greater than or equal to 1", {"ge": 1}),
        ({"size": 100}, "less_than", "Input should be less than 100", {"lt": 100}),
        ({"even": 3}, "multiple_of", "Input should be a multiple of 2", {"multiple_of": 2}),
        ({"share": 0}, "greater_than", "Input should be greater than 0", {"gt": 0.0}),
        ({"share": 1.5}, "less_than_equal", "Input should be less than or equal to 1", {"le": 1.0}),
        ({"text": ""}, "string_too_short", "String should have at least 1 character", {"min_length": 1}),
        ({"text": "aaaa"}, "string_too_long", "String should have at most 3 characters", {"max_length": 3}),
        ({"text": "b"}, "string_pattern_mismatch", "String should match pattern '^a*$'", {"pattern": "^a*$"}),
        (
            {"items": []},
            "too_short",
            "List should have at least 1 item after validation, not 0",
            {"field_type": "List", "min_length": 1, "actual_length": 0},
        ),
        (
            {"items": [1, 2, 3]},
            "too_long",
            "List should have at most 2 items after validation, not 3",
            {"field_type": "List", "max_length": 2, "actual_length": 3},
        ),
        (
            {"table": {}},
            "too_short",
            "Dictionary should have at least 1 item after validation, not 0",
            {"field_type": "Dictionary", "min_length": 1, "actual_length": 0},
        ),
        ({"nothing": 3}, "none_required", "Input should be None", None),
    ],
)
def test_constraints_are_named_as_pydantic_names_them(
    body: dict[str, Any], kind: str, message: str, context: dict[str, Any] | None
) -> None:
    [fault] = faults_of(body, Limits)
    [(field, value)] = body.items()
    assert (fault["type"], fault["loc"], fault["msg"], fault["input"]) == (kind, ["body", field], message, value)
    assert fault.get("ctx") == context


def test_a_union_lists_the_faults_of_each_member() -> None:
    assert [(fault["loc"], fault["type"]) for fault in faults_of({"either": []}, Limits)] == [
        (["body", "either", "int"], "int_type"),
        (["body", "either", "str"], "string_type"),
    ]
    assert convert_body({"either": "x", "size": 2}, Limits).either == "x"


class Late(msgspec.Struct):
    when: str = ""

    def __post_init__(self) -> None:
        if self.when == "never":
            raise ValueError("never is too late")


def test_what_the_walk_does_not_know_msgspec_still_refuses() -> None:
    [fault] = faults_of({"when": "never"}, Late)
    assert (fault["type"], fault["loc"], fault["msg"]) == ("value_error", ["body"], "never is too late")


# What is echoed.


@pytest.mark.parametrize(
    "value", ["x" * 9000, [list(range(5000))], {"a": "x" * 9000}, 2**70], ids=["text", "list", "object", "integer"]
)
def test_the_echo_of_something_huge_is_left_out(value: Any) -> None:
    [fault] = faults_of({**GOOD, "thread_id": value})
    assert fault["input"] is None
    assert len(JSONResponse({"detail": [fault]}).body or b"") < 9000


def test_the_echo_of_something_deep_never_breaks_the_answer() -> None:
    deep: Any = []
    for _ in range(1000):
        deep = [deep]
    assert JSONResponse({"detail": faults_of({**GOOD, "thread_id": deep})})


def test_an_answer_never_lists_faults_without_end() -> None:
    faults = faults_of({"k" * 5000: 1, **GOOD, "people": [{}] * 50_000})
    assert len(faults) == 1000


def test_items_after_the_last_fault_that_is_listed_are_not_checked() -> None:
    class Counted(list[Any]):
        read = 0

        def __iter__(self) -> Iterator[Any]:
            for item in super().__iter__():
                self.read += 1
                yield item

    people = Counted([{}] * 50_000)
    assert len(faults_of({**GOOD, "people": people})) == 1000
    assert people.read == 1000


# Queries.


class Page(msgspec.Struct):
    contact_id: str
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    share: float = 0
    flag: bool = False
    thread_id: UUID | None = None
    many: list[int] = []
    order: Literal["asc", "desc"] = "asc"


@pytest.mark.parametrize(("text", "limit"), [("7", 7), ("+7", 7), (" 7 ", 7), ("1_0", 10), ("7.0", 7), ("007", 7)])
def test_integers_are_read_from_text_as_pydantic_does(text: str, limit: int) -> None:
    query = f"contact_id=c&limit={text.replace('+', '%2B')}".encode()
    assert convert_query(QueryParams(query), Page).limit == limit


@pytest.mark.parametrize(
    ("query", "kind", "message", "context"),
    [
        (b"limit=0", "greater_than_equal", "Input should be greater than or equal to 1", {"ge": 1}),
        (b"limit=1001", "less_than_equal", "Input should be less than or equal to 1000", {"le": 1000}),
        *[
            (
                b"limit=" + text,
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer",
                None,
            )
            for text in (b"", b"x", b"1.5", b"1e3", b"0x1", b"1__0", b"%D9%A3")
        ],
        (b"limit=" + b"9" * 30, "less_than_equal", "Input should be less than or equal to 1000", {"le": 1000}),
        (b"share=x", "float_parsing", "Input should be a valid number, unable to parse string as a number", None),
        (b"flag=maybe", "bool_parsing", "Input should be a valid boolean, unable to interpret input", None),
        (b"order=up", "literal_error", "Input should be 'asc' or 'desc'", {"expected": "'asc' or 'desc'"}),
    ],
)
def test_faults_of_a_query_echo_its_text(query: bytes, kind: str, message: str, context: dict[str, Any] | None) -> None:
    [(name, text)] = QueryParams(query)
    [fault] = query_faults(b"contact_id=c&" + query, Page)
    assert (fault["type"], fault["loc"], fault["msg"], fault["input"]) == (kind, ["query", name], message, text)
    assert fault.get("ctx") == context


def test_a_missing_field_of_a_query_has_no_input() -> None:
    assert query_faults(b"", Page) == [
        {"type": "missing", "loc": ["query", "contact_id"], "msg": "Field required", "input": None}
    ]


def test_an_integer_too_long_to_be_read_is_refused_with_its_own_type() -> None:
    [fault] = query_faults(b"contact_id=c&limit=" + b"9" * 5000, Page)
    assert fault["type"] == "int_parsing_size"


def test_items_of_a_repeated_field_have_their_own_place() -> None:
    assert [fault["loc"] for fault in query_faults(b"contact_id=c&many=1&many=x", Page)] == [["query", "many", 1]]


def test_nul_in_a_query_is_refused() -> None:
    assert [fault["type"] for fault in query_faults(b"contact_id=a%00b", Page)] == ["string_contains_nul"]


@given(st.text(), st.text(), st.text(), st.text())
def test_no_query_leads_to_anything_but_a_model_or_a_422(limit: str, share: str, flag: str, thread_id: str) -> None:
    fields = {"contact_id": "c", "limit": limit, "share": share, "flag": flag, "thread_id": thread_id, "many": share}
    with suppress(ValidationError):
        convert_query(QueryParams(urlencode(fields, errors="replace").encode()), Page)


def test_an_open_string_full_of_quotes_is_read_once_not_from_each_quote() -> None:
    # A linear look takes milliseconds; a quadratic one would take the best part of an hour.
    refused(b"[" * 201 + b'"' + b'\\"' * 500_000)


def test_a_body_full_of_faults_gets_a_short_answer() -> None:
    deep = b'{"' + b"k" * 250 + b'":'
    raw = deep * 190 + b"[" + b",".join([b'"\\u0000"'] * 1500) + b"]" + b"}" * 190
    assert len(orjson.dumps(refused(raw))) < len(raw)
