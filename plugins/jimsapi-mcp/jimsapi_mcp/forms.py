"""Questions of the pipeline as MCP's forms, and a person's response as an answer.

A form is a flat object of texts, numbers, booleans and choices (2026-07-28, client/elicitation). A question for which
there is no such form is asked as a text, which may be JSON.
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

import orjson

from jimsapi.threads import Question

ANSWER = "answer"
"""The only field of the form of a question that is not a form itself."""

_SHARED = ("title", "description", "default")
_KEPT: dict[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength", "enum", "format"),
    "number": ("minimum", "maximum"),
    "integer": ("minimum", "maximum"),
    "boolean": (),
}
_FORMATS = ("email", "uri", "date", "date-time")
_MOST_REFERENCES = 10
_NOTHING: Mapping[str, Any] = {}


def form_of(question: Question) -> dict[str, Any]:
    """Return the schema of the form for a question."""
    if question.options is not None:
        return _wrapped({"type": "string", "enum": question.options})
    if question.schema is None:
        return _wrapped({"type": "string"})
    schema = _resolved(question.schema, question.schema)
    fields = _fields(schema, question.schema)
    if fields is not None:
        required = [name for name in schema.get("required", ()) if name in fields]
        form: dict[str, Any] = {"type": "object", "properties": fields}
        return {**form, "required": required} if required else form
    field = _field(schema, question.schema)
    if field is not None:
        return _wrapped(field)
    described = f"JSON that fits this JSON Schema: {orjson.dumps(question.schema).decode()}"
    return _wrapped({"type": "string", "description": described})


def answer_in(question: Question, content: Any) -> tuple[Any, str | None]:
    """Return the answer in the content of a form, and why it is none; the second is None if it is one."""
    if not isinstance(content, Mapping):
        return None, "The response has no content"
    schema = _NOTHING if question.schema is None else _resolved(question.schema, question.schema)
    if question.options is None and question.schema is not None and _fields(schema, question.schema) is not None:
        required = schema.get("required", ())
        answer: Any = {name: value for name, value in content.items() if value is not None or name in required}
        return answer, question.fault_of(answer)
    if ANSWER not in content:
        return None, f"The response lacks {ANSWER}"
    answer = content[ANSWER]
    fault = question.fault_of(answer)
    if fault is not None and isinstance(answer, str) and question.schema is not None:
        return _in_json(question, answer, fault)
    return answer, fault


def _in_json(question: Question, text: str, fault: str) -> tuple[Any, str | None]:
    """Return the answer that a person has typed as JSON."""
    try:
        answer = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text, fault
    return answer, question.fault_of(answer)


def _wrapped(field: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {ANSWER: field}, "required": [ANSWER]}


def _fields(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a flat object; None if the schema is another one."""
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, Mapping) or not properties:
        return None
    fields: dict[str, Any] = {}
    for name, part in properties.items():
        field = _field(part, root)
        if field is None:
            return None
        fields[name] = field
    return fields


def _field(schema: Any, root: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schema of a field as forms have it; None if forms have no such field."""
    found = _plain(schema, root)
    kind = found.get("type")
    if kind == "array":
        return _choice_of_many(found, root)
    titled = _titled(found)
    if titled is not None:
        shared = {name: found[name] for name in ("title", "description") if name in found}
        default = {"default": found["default"]} if found.get("default") in [one["const"] for one in titled] else {}
        return {"type": "string", **shared, **default, "oneOf": titled}
    choices = found.get("enum", [found["const"]] if "const" in found else None)
    if kind is None and isinstance(choices, list) and all(isinstance(one, str) for one in choices):
        kind = "string"
    if not isinstance(kind, str) or kind not in _KEPT:
        return None
    if choices is not None and kind == "string":
        found = {**found, "enum": choices}
    field = {"type": kind, **{name: found[name] for name in (*_SHARED, *_KEPT[kind]) if name in found}}
    if field.get("format") not in (None, *_FORMATS):
        del field["format"]
    if "default" in field and not _fits_default(kind, field["default"]):
        del field["default"]
    names = found.get("enumNames")
    if "enum" in field and _are_texts(names) and len(names) == len(field["enum"]):
        field["enumNames"] = names
    return field


def _choice_of_many(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schema of a field for several of some texts; None if a list has other items."""
    items = _plain(schema.get("items"), root)
    kept = {name: schema[name] for name in ("title", "description", "minItems", "maxItems") if name in schema}
    titled = _titled(items)
    if titled is not None:
        return {"type": "array", **kept, "items": {"anyOf": titled}}
    choices = items.get("enum")
    return {"type": "array", **kept, "items": {"type": "string", "enum": choices}} if _are_texts(choices) else None


def _titled(schema: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """Return the choices of a schema that gives each a title; None if it does not."""
    forms = schema.get("oneOf") or schema.get("anyOf")
    if not isinstance(forms, list):
        return None
    choices = [form.get("const") if isinstance(form, Mapping) else None for form in forms]
    if not _are_texts(choices):
        return None
    titles = [form.get("title") for form in forms]
    return [
        {"const": choice, "title": title if isinstance(title, str) else choice}
        for choice, title in zip(choices, titles, strict=True)
    ]


def _are_texts(values: Any) -> TypeGuard[list[str]]:
    return isinstance(values, list) and bool(values) and all(isinstance(one, str) for one in values)


def _plain(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema without references, and that of the value if it may also be null."""
    found = _resolved(schema, root)
    forms = found.get("anyOf") or found.get("oneOf")
    if isinstance(forms, list):
        others = [one for one in (_resolved(form, root) for form in forms) if one.get("type") != "null"]
        if len(others) == 1:
            outer = {name: found[name] for name in _SHARED if name in found}
            return {**others[0], **outer}
    kind = found.get("type")
    if isinstance(kind, list):
        kinds = [one for one in kind if one != "null"]
        return {**found, "type": kinds[0]} if len(kinds) == 1 else {}
    return found


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a schema refers to within the whole one; empty if it refers to nothing."""
    for _ in range(_MOST_REFERENCES):
        if not isinstance(schema, Mapping):
            return _NOTHING
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        schema = _referenced(root, reference)
    return _NOTHING


def _referenced(root: Mapping[str, Any], reference: str) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").split("/"):
        if part:
            found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _fits_default(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    return isinstance(value, int | float) and not isinstance(value, bool)
