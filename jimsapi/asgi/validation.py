"""Converts plain values to `msgspec.Struct`s, and lists every fault as pydantic names it.

msgspec is fast but stops at the first fault. So it converts the value first. Only if it fails does `_Walk` check the
fields one by one. It collects all faults, and accepts booleans and UUIDs as leniently as pydantic, on which clients
rely.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import inspect as shapes

from .body import Loc, fault, missing, nul
from .errors import Fault, ValidationError
from .fields import Fields, QueryParams

Model = TypeVar("Model", bound=msgspec.Struct)

MAX_FAULTS = 1000
"""Maximum number of faults in one response. Without a limit, a response could be many times as large as the body."""

_TRUE = frozenset(("1", "on", "t", "true", "y", "yes"))
_FALSE = frozenset(("0", "off", "f", "false", "n", "no"))


def _in_any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter}]" if letter.isalpha() else letter for letter in word)


BOOLEAN_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "boolean"},
        {"enum": [0, 1]},
        {"type": "string", "pattern": f"^({'|'.join(_in_any_case(word) for word in sorted(_TRUE | _FALSE))})$"},
    ]
}
"""The JSON schema of the values that are accepted as a boolean."""

# pydantic's grammar is narrower than uuid.UUID's: 32 digits, or dashed. Only the dashed form may be in braces or a URN.
_DASHED = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_UUID = re.compile(rf"[0-9a-fA-F]{{32}}|{_DASHED}|\{{{_DASHED}\}}|urn:uuid:{_DASHED}")
_UUID_GROUPS = (8, 4, 4, 4, 12)

_SPACE = r"[^\S\x1c-\x1f]*"  # Unicode's white space; Python's `\s` has four control characters more
_INTEGER_TEXT = re.compile(rf"{_SPACE}([+-]?[0-9]+(?:_[0-9]+)*)(?:\.0+)?{_SPACE}")
_FLOAT_TEXT = re.compile(
    rf"{_SPACE}([+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf|infinity)){_SPACE}", re.IGNORECASE
)
_STRAY_UNDERSCORE = re.compile(rf"^{_SPACE}_|_{_SPACE}$|__")
_LIMIT_NAMES = {
    "multiple_of": "multiple_of",
    "less_than_equal": "le",
    "less_than": "lt",
    "greater_than_equal": "ge",
    "greater_than": "gt",
}

_MAX_DIGITS = 4300  # Python does not convert longer integers

_PLACE = re.compile(r" - at `(?:key in )?\$([^`]*)`$")
_PLACE_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


def convert_body(value: Any, model: type[Model]) -> Model:
    """Convert the value of a JSON body to `model`.

    Raises `ValidationError` (422) with every fault. The `loc` of each begins with "body".
    """
    try:
        return msgspec.convert(value, model)
    except msgspec.ValidationError:
        return _convert_slowly(value, model)


def convert_query(query: QueryParams, model: type[Model]) -> Model:
    """Convert a query string to `model`.

    Raises `ValidationError` (422) with every fault. The `loc` of each begins with "query".
    """
    return convert_fields(query, model, "query")


def convert_fields(given: Fields, model: type[Model], origin: str) -> Model:
    """Convert text fields to `model`.

    Raises `ValidationError` (422) with every fault. The `loc` of each begins with `origin`.
    """
    walk = _Walk(from_text=True)
    values: dict[str, Any] = {}
    for field in _struct(model).fields:
        name, kind = field.encode_name, _bare(field.type)
        if name not in given:
            if field.required:
                walk.add(missing((origin, name)))
            continue
        raw: Any = given.getlist(name) if _is_list(kind) else given.get(name)
        values[name] = walk.check(kind, raw, (origin, name))
    if _struct(model).forbid_unknown_fields:
        walk.unknown_fields(_struct(model), dict(given), (origin,))
    return walk.result(values, model, origin)


def _convert_slowly(value: Any, model: type[Model]) -> Model:
    walk = _Walk(from_text=False)
    return walk.result(walk.check(_shape(model), value, ("body",)), model, "body")


@cache
def _shape(model: type[msgspec.Struct]) -> shapes.Type:
    """Return msgspec's description of a type."""
    return _bare(shapes.type_info(model))


def _bare(kind: shapes.Type) -> shapes.Type:
    return kind.type if isinstance(kind, shapes.Metadata) else kind


def _struct(model: type[msgspec.Struct]) -> shapes.StructType:
    shape = _shape(model)
    if not isinstance(shape, shapes.StructType):
        raise TypeError(f"{model!r} is not a msgspec.Struct")
    return shape


def _is_list(kind: shapes.Type) -> bool:
    if isinstance(kind, shapes.UnionType):
        return any(_is_list(_bare(member)) for member in kind.types)
    return isinstance(kind, shapes.ListType)


class _Walk:
    """One pass over a value that collects faults. `check` returns the value with booleans and UUIDs converted.

    With `from_text` it also parses numbers from text, as for a query string. The `input` of a fault is then the text.
    """

    __slots__ = ("faults", "from_text")

    def __init__(self, from_text: bool) -> None:
        self.from_text = from_text
        self.faults: list[Fault] = []

    @property
    def is_full(self) -> bool:
        """Whether the walk has found as many faults as a response lists. Callers then stop their checks."""
        return len(self.faults) >= MAX_FAULTS

    def add(self, item: Fault) -> None:
        if not self.is_full:
            self.faults.append(item)

    def report(self, kind: str, loc: Loc, message: str, value: Any, context: dict[str, Any] | None = None) -> Any:
        """Add a fault. Returns `value`."""
        if not self.is_full:  # checked first, since `fault` has to measure the value
            self.faults.append(fault(kind, loc, message, value, context))
        return value

    def result(self, value: Any, model: type[Model], origin: str) -> Model:
        """Return the model, or raise `ValidationError` with all faults.

        msgspec does the checks that this class does not do.
        """
        if self.faults:
            raise ValidationError(self.faults)
        try:
            return msgspec.convert(value, model)
        except msgspec.ValidationError as error:
            message = str(error)
            loc = (origin, *_place(message))
            raise ValidationError([fault("value_error", loc, _PLACE.sub("", message), None)]) from None

    def check(self, kind: shapes.Type, value: Any, loc: Loc) -> Any:
        check = _CHECKS.get(type(kind))
        return value if check is None else check(self, kind, value, loc)

    def struct(self, kind: shapes.StructType, value: Any, loc: Loc) -> Any:
        if kind.array_like or kind.tag_field:
            return value
        if not isinstance(value, dict):
            message = "Input should be a valid dictionary or object to extract fields from"
            return self.report("model_attributes_type", loc, message, value)
        checked = {}
        for field in kind.fields:
            name = field.encode_name
            if name in value:
                checked[name] = self.check(_bare(field.type), value[name], (*loc, name))
            elif field.required:
                self.add(missing((*loc, name), value))
        if kind.forbid_unknown_fields:
            self.unknown_fields(kind, value, loc)
        return checked

    def unknown_fields(self, kind: shapes.StructType, value: dict[str, Any], loc: Loc) -> None:
        """Report the fields that the struct does not have."""
        known = {kind.tag_field, *(field.encode_name for field in kind.fields)}
        for name, item in value.items():
            if name not in known:
                self.report("extra_forbidden", (*loc, name), "Extra inputs are not permitted", item)

    def text(self, kind: shapes.StrType, value: Any, loc: Loc) -> Any:
        if not isinstance(value, str):
            return self.report("string_type", loc, "Input should be a valid string", value)
        if self.from_text and "\0" in value:
            self.add(nul(loc, value))
        elif kind.min_length is not None and len(value) < kind.min_length:
            minimum = kind.min_length
            message = f"String should have at least {minimum} character{_s(minimum)}"
            self.report("string_too_short", loc, message, value, {"min_length": minimum})
        elif kind.max_length is not None and len(value) > kind.max_length:
            maximum = kind.max_length
            message = f"String should have at most {maximum} character{_s(maximum)}"
            self.report("string_too_long", loc, message, value, {"max_length": maximum})
        elif kind.pattern is not None and not re.search(kind.pattern, value):
            message = f"String should match pattern '{kind.pattern}'"
            self.report("string_pattern_mismatch", loc, message, value, {"pattern": kind.pattern})
        return value

    def boolean(self, kind: shapes.BoolType, value: Any, loc: Loc) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            lowered = value.lower()
            if lowered in _TRUE or lowered in _FALSE:
                return lowered in _TRUE
        elif isinstance(value, (int, float)) and value in (0, 1):
            return value == 1
        elif not isinstance(value, (int, float)) or value % 1 or not -(2**63) <= value < 2**63:
            return self.report("bool_type", loc, "Input should be a valid boolean", value)
        message = "Input should be a valid boolean, unable to interpret input"
        return self.report("bool_parsing", loc, message, value)

    def uuid(self, kind: shapes.UUIDType, value: Any, loc: Loc) -> Any:
        if not isinstance(value, str):
            return self.report("uuid_type", loc, "UUID input should be a string, bytes or UUID object", value)
        if _UUID.fullmatch(value):
            return UUID(value)
        reason = _uuid_error(value)
        return self.report("uuid_parsing", loc, f"Input should be a valid UUID, {reason}", value, {"error": reason})

    def integer(self, kind: shapes.IntType, value: Any, loc: Loc) -> Any:
        number = value
        if self.from_text:
            match = _INTEGER_TEXT.fullmatch(value)
            if match is None:
                message = "Input should be a valid integer, unable to parse string as an integer"
                return self.report("int_parsing", loc, message, value)
            if len(match[1]) > _MAX_DIGITS:
                message = "Unable to parse input string as an integer, exceeded maximum size"
                return self.report("int_parsing_size", loc, message, value)
            number = int(match[1])
        elif isinstance(value, bool) or not isinstance(value, int):
            return self.report("int_type", loc, "Input should be a valid integer", value)
        self.bounds(kind, number, value, loc)
        return number

    def number(self, kind: shapes.FloatType, value: Any, loc: Loc) -> Any:
        number = value
        if self.from_text:
            match = None if _STRAY_UNDERSCORE.search(value) else _FLOAT_TEXT.fullmatch(value.replace("_", ""))
            if match is None:
                message = "Input should be a valid number, unable to parse string as a number"
                return self.report("float_parsing", loc, message, value)
            number = float(match[1])
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            return self.report("float_type", loc, "Input should be a valid number", value)
        self.bounds(kind, number, value, loc)
        return number

    def bounds(self, kind: shapes.IntType | shapes.FloatType, number: float, value: Any, loc: Loc) -> None:
        """Check the limits of a number in pydantic's order. Only the first that fails is reported."""
        if kind.multiple_of is not None and number % kind.multiple_of:
            self.limit("multiple_of", "Input should be a multiple of", kind, kind.multiple_of, value, loc)
        elif kind.le is not None and not number <= kind.le:
            self.limit("less_than_equal", "Input should be less than or equal to", kind, kind.le, value, loc)
        elif kind.lt is not None and not number < kind.lt:
            self.limit("less_than", "Input should be less than", kind, kind.lt, value, loc)
        elif kind.ge is not None and not number >= kind.ge:
            self.limit("greater_than_equal", "Input should be greater than or equal to", kind, kind.ge, value, loc)
        elif kind.gt is not None and not number > kind.gt:
            self.limit("greater_than", "Input should be greater than", kind, kind.gt, value, loc)

    def limit(self, name: str, message: str, kind: shapes.Type, limit: float, value: Any, loc: Loc) -> None:
        # For the limit of a float pydantic's message has 1 and its context 1.0.
        shown = int(limit) if limit % 1 == 0 else limit
        exact = float(limit) if isinstance(kind, shapes.FloatType) else limit
        self.report(name, loc, f"{message} {shown}", value, {_LIMIT_NAMES[name]: exact})

    def array(self, kind: shapes.ListType, value: Any, loc: Loc) -> Any:
        if not isinstance(value, list):
            return self.report("list_type", loc, "Input should be a valid list", value)
        # pydantic stops at the first item beyond the maximum. It checks the minimum only if all items are valid.
        if kind.max_length is not None and len(value) > kind.max_length:
            return self.too_long("List", kind.max_length, value, loc)
        before = len(self.faults)
        item_kind = _bare(kind.item_type)
        checked = []
        for index, item in enumerate(value):
            checked.append(self.check(item_kind, item, (*loc, index)))
            if self.is_full:
                break
        if kind.min_length is not None and len(value) < kind.min_length and len(self.faults) == before:
            self.too_short("List", kind.min_length, value, loc)
        return checked

    def mapping(self, kind: shapes.DictType, value: Any, loc: Loc) -> Any:
        if not isinstance(value, dict):
            return self.report("dict_type", loc, "Input should be a valid dictionary", value)
        before = len(self.faults)
        key_kind, value_kind = _bare(kind.key_type), _bare(kind.value_type)
        checked = {}
        for key, item in value.items():
            # A JSON key is text. This pass checks only keys that the model declares as text or UUIDs.
            place = (*loc, key)
            checked_key = self.check(key_kind, key, (*place, "[key]")) if isinstance(key_kind, _KEY_KINDS) else key
            checked[checked_key] = self.check(value_kind, item, place)
            if self.is_full:
                break
        if len(self.faults) == before:
            if kind.max_length is not None and len(value) > kind.max_length:
                self.too_long("Dictionary", kind.max_length, value, loc)
            elif kind.min_length is not None and len(value) < kind.min_length:
                self.too_short("Dictionary", kind.min_length, value, loc)
        return checked

    def too_long(self, field_type: str, maximum: int, value: Any, loc: Loc) -> Any:
        message = f"{field_type} should have at most {maximum} item{_s(maximum)} after validation, not {len(value)}"
        context = {"field_type": field_type, "max_length": maximum, "actual_length": len(value)}
        return self.report("too_long", loc, message, value, context)

    def too_short(self, field_type: str, minimum: int, value: Any, loc: Loc) -> Any:
        message = f"{field_type} should have at least {minimum} item{_s(minimum)} after validation, not {len(value)}"
        context = {"field_type": field_type, "min_length": minimum, "actual_length": len(value)}
        return self.report("too_short", loc, message, value, context)

    def literal(self, kind: shapes.LiteralType, value: Any, loc: Loc) -> Any:
        for allowed in kind.values:
            if value == allowed and type(value) is type(allowed):
                return value
            if self.from_text and value == str(allowed):
                return allowed
        *others, last = [repr(allowed) for allowed in kind.values]
        expected = f"{', '.join(others)} or {last}" if others else last
        return self.report("literal_error", loc, f"Input should be {expected}", value, {"expected": expected})

    def none(self, kind: shapes.NoneType, value: Any, loc: Loc) -> Any:
        return value if value is None else self.report("none_required", loc, "Input should be None", value)

    def union(self, kind: shapes.UnionType, value: Any, loc: Loc) -> Any:
        if value is None and kind.includes_none:
            return None
        members = [_bare(member) for member in kind.types if not isinstance(_bare(member), shapes.NoneType)]
        if len(members) == 1:
            return self.check(members[0], value, loc)
        return self.first_valid(members, value, loc)

    def first_valid(self, members: Iterable[shapes.Type], value: Any, loc: Loc) -> Any:
        """Return the value as the first valid member converts it. Else add each member's faults, under its name."""
        found: list[Fault] = []
        for member in members:
            attempt = _Walk(self.from_text)
            checked = attempt.check(member, value, (*loc, _member_name(member)))
            if not attempt.faults:
                return checked
            found += attempt.faults
        for item in found:
            self.add(item)
        return value


_KEY_KINDS = (shapes.StrType, shapes.UUIDType)

_CHECKS: dict[type[shapes.Type], Callable[[_Walk, Any, Any, Loc], Any]] = {
    shapes.StructType: _Walk.struct,
    shapes.StrType: _Walk.text,
    shapes.BoolType: _Walk.boolean,
    shapes.UUIDType: _Walk.uuid,
    shapes.IntType: _Walk.integer,
    shapes.FloatType: _Walk.number,
    shapes.ListType: _Walk.array,
    shapes.DictType: _Walk.mapping,
    shapes.LiteralType: _Walk.literal,
    shapes.NoneType: _Walk.none,
    shapes.UnionType: _Walk.union,
}

_MEMBER_NAMES: dict[type[shapes.Type], str] = {
    shapes.StrType: "str",
    shapes.BoolType: "bool",
    shapes.UUIDType: "uuid",
    shapes.IntType: "int",
    shapes.FloatType: "float",
    shapes.ListType: "list",
    shapes.DictType: "dict",
    shapes.LiteralType: "literal",
}


def _member_name(kind: shapes.Type) -> str:
    if isinstance(kind, shapes.StructType):
        return kind.cls.__name__
    return _MEMBER_NAMES.get(type(kind), type(kind).__name__.removesuffix("Type").lower())


def _uuid_error(text: str) -> str:
    """Return pydantic's message for a text that is not a UUID. Positions and lengths are in bytes of UTF-8."""
    size = len(text.encode("utf-8", "replace"))
    if size > 45:  # the longest form
        return f"invalid length: found {size}"
    # pydantic chooses a form by the length first. If a form has its right length, pydantic counts positions without the
    # brace or the prefix. A text of 36 bytes has no other form than the one with hyphens.
    inner, offset, simple = text, 0, False
    if size == 36:
        pass
    elif len(text) >= 2 and text[0] == "{" and text[-1] == "}":
        inner, offset = text[1:-1], 0 if size == 38 else 1
    elif text.startswith("urn:uuid:"):
        inner, offset = text[9:], 0 if size == 45 else 9
    else:
        simple = True
    for index, character in enumerate(inner):
        if character not in "0123456789abcdefABCDEF-":
            position = len(inner[:index].encode("utf-8", "replace")) + offset
            return f"invalid character: found `{character}` at {position}"
    groups = inner.split("-")
    if simple and len(groups) == 1:
        return f"invalid length: found {size}"
    if len(groups) != len(_UUID_GROUPS):
        return f"invalid group count: expected 5, found {len(groups)}"
    for index, (group, length) in enumerate(zip(groups, _UUID_GROUPS, strict=True)):
        if len(group) != length:
            # pydantic computes the length of the last group without regard to braces or the URN prefix.
            found = size - 24 if index == 4 else len(group)
            return f"invalid group length in group {index}: expected {length}, found {found}"
    return f"invalid length: found {size}"


def _place(message: str) -> list[str | int]:
    """Return the place at the end of msgspec's message, as the parts of a `loc`."""
    match = _PLACE.search(message)
    if match is None:
        return []
    return [name or (int(index) if index.isdigit() else index) for name, index in _PLACE_STEP.findall(match[1])]


def _s(count: int) -> str:
    return "" if count == 1 else "s"
