"""The form that the page makes of a JSON Schema, and the value that it makes of what a person enters."""

from pathlib import Path
from typing import Any

import pytest

from tests.node import run_node

PROGRAM = Path(__file__).with_name("form.mjs")
MAYBE = {"anyOf": [{"type": "boolean"}, {"type": "null"}]}
LISTS = [{"type": "array", "items": {"$ref": "#"}} for _ in range(60)]


def made(schema: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The form of a schema, and the value of what is entered."""
    [found] = run_node(PROGRAM, cases=[{"schema": schema, "values": values}])
    assert isinstance(found, dict)
    return found


def form_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        ({"anyOf": [{"$ref": "#"}, {"type": "string"}]}, ["json"]),
        ({"anyOf": LISTS}, ["json"]),
        ({"allOf": [{"$ref": "#"}]}, ["json"]),
        ({"type": {"toString": None}}, ["json"]),
        (True, ["json"]),
        ("schema", ["json"]),
        (form_of(a=None), ["json"]),
        (form_of(a={"type": "string", "title": {"a": 1}, "default": {"toString": None}}), ["string"]),
        ({**form_of(a={"type": "integer"}), "required": True}, ["integer"]),
        (form_of(a={"type": "array", "items": {**form_of(b={}), "required": True}}), ["json"]),
        (form_of(a={"$ref": "#"}), ["json"]),
        (form_of(a={"anyOf": LISTS}, b={"type": "string"}), ["json", "string"]),
    ],
)  # fmt: skip
def test_each_schema_makes_a_form(schema: Any, kinds: list[str]) -> None:
    fields = made(schema, {})["form"]["fields"]
    assert [field["kind"] for field in fields] == kinds
    assert all(len(field.get("shape", "")) <= 501 for field in fields)


@pytest.mark.parametrize(
    ("schema", "values", "value"),
    [
        (form_of(a=MAYBE), {}, {}),
        (form_of(a=MAYBE), {"a": "false"}, {"a": False}),
        (form_of(a={**MAYBE, "default": True}), {}, {"a": True}),
        ({**form_of(a=MAYBE), "required": ["a"]}, {}, {"a": None}),
        (form_of(a={"type": "boolean"}), {}, {}),
        (form_of(a={"type": "boolean"}), {"a": False}, {"a": False}),
        (form_of(a={"type": "boolean", "default": True}), {}, {"a": True}),
        ({**form_of(a={"type": "boolean"}), "required": ["a"]}, {}, {"a": False}),
        (form_of(a=form_of(b={"type": "boolean", "default": True})), {"a": {"b": False}}, {"a": {"b": False}}),
        (form_of(a=form_of(b={"type": "boolean", "default": True})), {"a": {"b": True}}, {}),
        (form_of(a=form_of(b={"type": "string"})), {"a": {"b": ""}}, {}),
        (form_of(a={"enum": ["x", None]}), {"a": "x"}, {"a": "x"}),
        ({**form_of(a={"enum": ["x", None]}), "required": ["a"]}, {}, {"a": None}),
        (form_of(constructor={"type": "integer"}, toString={"type": "array"}), {}, {}),
        (form_of(constructor=form_of(toString={"type": "integer"})), {"constructor": {}}, {}),
        (form_of(__proto__={"type": "string"}), {}, {}),
        (form_of(__proto__={"type": "string"}), {"__proto__": "x"}, {"__proto__": "x"}),
    ],
)
def test_a_form_makes_the_value_that_a_person_entered(schema: Any, values: dict[str, Any], value: Any) -> None:
    assert made(schema, values)["value"] == value
