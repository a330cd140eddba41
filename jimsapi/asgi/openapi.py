"""Builds the OpenAPI 3.1 document of an app from its routes, their models and their handlers' docstrings."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from inspect import getdoc
from types import MappingProxyType
from typing import Any

import msgspec

from .route import Parameter, Route
from .routing import parse_path
from .validation import BOOLEAN_SCHEMA

REFERENCE = "#/components/schemas/{name}"

_PARAMETER_SCHEMAS: dict[str, dict[str, Any]] = {
    "": {"type": "string"},
    "uuid": {"type": "string", "format": "uuid"},
    "int": {"type": "integer", "format": "int64"},
    "path": {"type": "string"},
}

_FILE: dict[str, Any] = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
"""The schema of a file in a form. OpenAPI 3.1 (section 4.8.14.3) reads `contentMediaType`, older tools `format`."""

_NOT_ADMITTED = {401: "The credentials are missing or wrong.", 403: "The credentials do not allow this."}

# The schemas of the 422 response, named as FastAPI names them.
_FAULTS = {
    "HTTPValidationError": {
        "title": "HTTPValidationError",
        "type": "object",
        "properties": {"detail": {"type": "array", "items": {"$ref": "#/components/schemas/ValidationError"}}},
    },
    "ValidationError": {
        "title": "ValidationError",
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
            "msg": {"type": "string"},
            "type": {"type": "string"},
            "input": {},
            "ctx": {"type": "object"},
        },
    },
}


def build_document(
    title: str,
    version: str,
    description: str,
    routes: Sequence[Route],
    security_schemes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    *,
    admits: bool = False,
) -> dict[str, Any]:
    """Return the document as a JSON object. Raises what msgspec raises for a model without a JSON schema.

    Callers of a route that is not public send the credentials of one of `security_schemes`. If `admits` is true, such
    routes have the answers 401 and 403.
    """
    models = _models(routes)
    references, components = msgspec.json.schema_components(models, ref_template=REFERENCE)
    schemas = dict(zip(models, references, strict=True))
    relaxed: set[str] = set()
    for route in routes:
        for model in (route.body, route.query, route.form):
            if model is not None:
                _relax(schemas[model], components, relaxed)
    paths: dict[str, dict[str, Any]] = {}
    ids: set[str] = set()
    for route in routes:
        path = _template(route.path)
        for method in route.methods or ("GET",):  # OpenAPI cannot describe a WebSocket; its handshake is a GET
            if route.websocket and "get" in paths.get(path, {}):
                continue
            operation = _operation(route, schemas, components, admits and not route.public)
            if security_schemes and not route.public:
                operation["security"] = [{name: []} for name in security_schemes]
            operation["operationId"] = _unique(f"{route.name}_{method.lower()}{_words(path)}", ids)
            paths.setdefault(path, {})[method.lower()] = operation
    info = {"title": title, "version": version}
    if description:
        info["description"] = description
    document: dict[str, Any] = {"openapi": "3.1.0", "info": info, "paths": paths}
    if any(_is_validated(route) for route in routes):
        components = {**components, **_FAULTS}
    if components:
        document["components"] = {"schemas": components}
    if security_schemes:
        document.setdefault("components", {})["securitySchemes"] = dict(security_schemes)
    return document


def _models(routes: Sequence[Route]) -> list[Any]:
    """Return each model once, in the order of the routes."""
    found: dict[Any, None] = {}
    for route in routes:
        documented = (answer[1] for answer in (route.responses or {}).values() if isinstance(answer, tuple))
        for model in (route.body, route.query, route.form, route.response, *documented):
            if model is not None and not isinstance(model, str):
                found[model] = None
    return list(found)


def _relax(schema: Any, components: dict[str, Any], seen: set[str]) -> None:
    """Change the booleans in the schema of a body or query, since numbers and words are accepted for them too."""
    if isinstance(schema, list):
        for part in schema:
            _relax(part, components, seen)
    elif isinstance(schema, dict):
        if schema.get("type") == "boolean":
            del schema["type"]
            schema |= BOOLEAN_SCHEMA
            return
        for name, part in schema.items():
            if name == "$ref" and isinstance(part, str):
                component = part.rpartition("/")[2]
                if component not in seen:
                    seen.add(component)
                    _relax(components[component], components, seen)
            elif name != "default":
                _relax(part, components, seen)


def _operation(
    route: Route, schemas: dict[Any, Any], components: dict[str, Any], needs_admission: bool
) -> dict[str, Any]:
    summary, _, description = (getdoc(route.handler) or "").partition("\n")
    operation: dict[str, Any] = {}
    if summary := route.summary or summary.strip():
        operation["summary"] = summary
    if description := description.strip():
        operation["description"] = description
    if route.tags:
        operation["tags"] = list(route.tags)
    if parameters := [*_path_parameters(route), *_query_parameters(route, schemas, components)]:
        operation["parameters"] = parameters
    content = {} if route.body is None else _json(schemas[route.body])
    if content := {**content, **_form(route, schemas, components)}:
        operation["requestBody"] = {"required": True, "content": content}
    operation["responses"] = _responses(route, schemas)
    if needs_admission and not route.websocket:
        for status, description in _NOT_ADMITTED.items():
            operation["responses"].setdefault(str(status), {"description": description})
    return operation


def _form(route: Route, schemas: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    """Return the content types of the form of a route with their schemas. Only one of them can carry files."""
    if not route.files:
        kinds = ("application/x-www-form-urlencoded", "multipart/form-data") if route.form is not None else ()
        return {kind: {"schema": schemas[route.form]} for kind in kinds}
    texts: dict[str, Any] = {"type": "object"}
    if route.form is not None:
        texts = components[schemas[route.form]["$ref"].rpartition("/")[2]]
    properties = {**texts.get("properties", {}), **dict.fromkeys(route.files, _FILE)}
    return {"multipart/form-data": {"schema": {**texts, "properties": properties}}}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": part.name, "in": "path", "required": True, "schema": _PARAMETER_SCHEMAS[part.kind]}
        for part in parse_path(route.path)
        if isinstance(part, Parameter)
    ]


def _query_parameters(route: Route, schemas: dict[Any, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one parameter for each field of the query model, since a query has no object that contains them.

    If the schema of a field has `contentSchema`, its text is a JSON value with that schema (OpenAPI 3.1, section
    4.8.12.3). A model adds it with `msgspec.Meta(extra_json_schema=...)`.
    """
    if route.query is None:
        return []
    model = components[schemas[route.query]["$ref"].rpartition("/")[2]]
    parameters = []
    for name, schema in model["properties"].items():
        schema = dict(schema)
        parameter = {"name": name, "in": "query", "required": name in model.get("required", ())}
        text = next((one for one in (schema, *schema.get("anyOf", ())) if "contentSchema" in one), None)
        if description := (schema if text is None else text).pop("description", None):
            parameter["description"] = description
        described = {"schema": schema} if text is None else {"content": _json(text["contentSchema"])}
        parameters.append({**parameter, **described})
    return parameters


def _responses(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": _phrase(route.status)}
    if route.response is not None:
        success["content"] = _json(schemas[route.response])
    answers = {str(route.status): success}
    if _is_validated(route):
        content = _json({"$ref": REFERENCE.format(name="HTTPValidationError")})
        answers["422"] = {"description": "The body or the query is invalid", "content": content}
    for status, answer in (route.responses or {}).items():
        if isinstance(answer, str):
            answers[str(status)] = {**answers.get(str(status), {}), "description": answer}
            continue
        description, body = answer
        known = answers.get(str(status), {}).get("content", {})
        content = {**known, **_text(body)} if isinstance(body, str) else _json(schemas[body])
        answers[str(status)] = {"description": description, "content": content}
    return answers


def _is_validated(route: Route) -> bool:
    return route.body is not None or route.query is not None or route.form is not None


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _text(content_type: str) -> dict[str, Any]:
    return {content_type: {"schema": {"type": "string"}}}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return str(status)


def _template(path: str) -> str:
    """Return the path as OpenAPI writes it, without the kinds of its parameters."""
    parts = [f"{{{part.name}}}" if isinstance(part, Parameter) else part for part in parse_path(path)]
    return "/" + "/".join(parts)


def _words(path: str) -> str:
    return "".join(f"_{part.strip('{}')}" for part in path.split("/") if part).replace("-", "_").replace(".", "_")


def _unique(base: str, taken: set[str]) -> str:
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name
