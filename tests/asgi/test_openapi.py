"""The OpenAPI document and the page that shows it."""

import base64
import hashlib
import re
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # comes with openapi-spec-validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from jimsapi.asgi import App, Connection, Request, Response, Route
from jimsapi.asgi.testing import TestClient

from .driver import ask

pytestmark = pytest.mark.anyio


class Part(msgspec.Struct):
    size: Annotated[int, msgspec.Meta(ge=1, description="In centimetres.")] = 1


class Thing(msgspec.Struct):
    name: str
    id: UUID | None = None
    parts: list[Part] = []


class Page(msgspec.Struct):
    contact_id: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000, description="How many.")] = 100


class Problem(msgspec.Struct):
    detail: str


async def empty(request: Request) -> Response:
    return Response()


def documented() -> App:
    app = App(title="Things", version="1.2", description="All about things.")

    @app.post("/things", body=Thing, response=Thing, status=201, responses={409: ("Taken", Problem), 401: "Unknown"})
    async def make_thing(request: Request) -> Response:
        """Make a thing.

        It is made at once.
        """
        return Response()

    looking: Any = {"query": Page, "response": Thing, "tags": ("things",), "summary": "Look", "name": "look"}
    app.get("/things/{id:uuid}/{n:int}/{rest:path}", **looking)(empty)
    app.route("/both", ["GET", "PUT"])(empty)

    app.delete("/things/{id}", status=204, name="look")(empty)

    app.post("/watch", body=Thing, responses={200: ("As it is made", "text/event-stream")})(empty)

    app.get("/a-b")(empty)
    app.get("/a_b")(empty)
    app.docs()
    return app


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(documented().openapi()).validate()
    OpenAPIV31SpecValidator(App().openapi()).validate()


def test_a_route_is_described_by_its_models_and_its_docstring() -> None:
    document = documented().openapi()
    assert document["openapi"].startswith("3.1")
    assert document["info"] == {"title": "Things", "version": "1.2", "description": "All about things."}
    make = document["paths"]["/things"]["post"]
    assert (make["summary"], make["description"]) == ("Make a thing.", "It is made at once.")
    reference = {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}
    assert make["requestBody"] == {"required": True, "content": reference}
    assert make["responses"]["201"] == {"description": "Created", "content": reference}
    assert make["responses"]["401"] == {"description": "Unknown"}
    assert make["responses"]["409"]["description"] == "Taken"
    assert "422" in make["responses"]
    assert set(document["components"]["schemas"]) >= {"Thing", "Part", "Problem", "HTTPValidationError"}


def test_parameters_come_from_the_path_and_the_query_model() -> None:
    look = documented().openapi()["paths"]["/things/{id}/{n}/{rest}"]["get"]
    shown = {(each["in"], each["name"]): each for each in look["parameters"]}
    assert shown["path", "id"]["schema"] == {"type": "string", "format": "uuid"}
    assert shown["path", "n"]["schema"]["type"] == "integer"
    assert shown["query", "contact_id"]["required"] is True
    assert shown["query", "limit"] == {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "How many.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    }
    assert (look["summary"], look["tags"]) == ("Look", ["things"])


def test_an_answer_that_is_no_json_is_described_by_its_content_type() -> None:
    answers = documented().openapi()["paths"]["/watch"]["post"]["responses"]
    stream = {"text/event-stream": {"schema": {"type": "string"}}}
    assert answers["200"] == {"description": "As it is made", "content": stream}


def test_a_description_alone_keeps_the_content_that_is_known() -> None:
    app = App()

    app.post("/things", body=Thing, response=Thing, responses={200: "The thing", 422: "Faulty"})(empty)

    answers = app.openapi()["paths"]["/things"]["post"]["responses"]
    for status, description, model in (("200", "The thing", "Thing"), ("422", "Faulty", "HTTPValidationError")):
        schema = {"$ref": f"#/components/schemas/{model}"}
        assert answers[status] == {"description": description, "content": {"application/json": {"schema": schema}}}


def test_a_content_type_is_listed_beside_the_json_that_is_known() -> None:
    app = App()

    app.get("/things", response=Thing, responses={200: ("The thing, or its changes", "text/event-stream")})(empty)

    answer = app.openapi()["paths"]["/things"]["get"]["responses"]["200"]
    assert answer["description"] == "The thing, or its changes"
    assert answer["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/Thing"}},
        "text/event-stream": {"schema": {"type": "string"}},
    }


def test_private_routes_name_the_schemes_of_their_credentials() -> None:
    schemes = {"key": {"type": "http", "scheme": "Bearer"}, "cookie": {"type": "apiKey", "in": "cookie", "name": "s"}}
    app = App(security_schemes=schemes)

    app.get("/private")(empty)

    app.get("/public", public=True)(empty)
    document = app.openapi()
    OpenAPIV31SpecValidator(document).validate()
    assert document["components"] == {"securitySchemes": schemes}
    assert document["paths"]["/private"]["get"]["security"] == [{"key": []}, {"cookie": []}]
    assert "security" not in document["paths"]["/public"]["get"]


async def admit(caller: Connection, route: Route) -> None:
    """Admit everybody."""


def test_private_routes_of_an_app_with_admit_list_401_and_403() -> None:
    app = App(admit=admit)

    app.get("/private", responses={403: "Only on weekdays."})(empty)

    app.get("/scoped", scope="desk")(empty)
    app.get("/public", public=True)(empty)
    document = app.openapi()
    OpenAPIV31SpecValidator(document).validate()
    answers = {path: methods["get"]["responses"] for path, methods in document["paths"].items()}
    assert list(answers["/private"]) == ["200", "403", "401"]
    assert answers["/private"]["403"] == {"description": "Only on weekdays."}
    assert answers["/private"]["401"] == {"description": "The credentials are missing or wrong."}
    assert answers["/scoped"]["403"] == {"description": "The credentials do not allow this."}
    assert list(answers["/public"]) == ["200"]


def test_private_routes_of_an_app_without_admit_list_neither_401_nor_403() -> None:
    app = App()

    app.get("/private", scope="desk")(empty)

    assert list(app.openapi()["paths"]["/private"]["get"]["responses"]) == ["200"]


class Caption(msgspec.Struct):
    title: Annotated[str, msgspec.Meta(description="Below the photo.")]
    framed: bool = False


FILE = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}


def with_form(**declared: Any) -> dict[str, Any]:
    """The document of an app with a route that has a form."""
    app = App()

    app.post("/photos", **declared)(empty)

    document = app.openapi()
    OpenAPIV31SpecValidator(document).validate()
    return document


def test_a_form_of_texts_is_described_in_both_encodings() -> None:
    document = with_form(form=Caption)
    operation = document["paths"]["/photos"]["post"]
    reference = {"schema": {"$ref": "#/components/schemas/Caption"}}
    kinds = ("application/x-www-form-urlencoded", "multipart/form-data")
    assert operation["requestBody"] == {"required": True, "content": dict.fromkeys(kinds, reference)}
    assert "422" in operation["responses"]
    assert "anyOf" in document["components"]["schemas"]["Caption"]["properties"]["framed"]  # `on` is true in a form


def test_the_files_of_a_form_are_described_beside_its_texts() -> None:
    content = with_form(form=Caption, files=["photo", "thumbnail"])["paths"]["/photos"]["post"]["requestBody"][
        "content"
    ]
    assert list(content) == ["multipart/form-data"]
    schema = content["multipart/form-data"]["schema"]
    assert list(schema["properties"]) == ["title", "framed", "photo", "thumbnail"]
    assert schema["properties"]["photo"] == schema["properties"]["thumbnail"] == FILE
    assert schema["required"] == ["title"]


def test_a_form_of_files_alone_is_described() -> None:
    operation = with_form(files=["photo"])["paths"]["/photos"]["post"]
    schema = {"type": "object", "properties": {"photo": FILE}}
    assert operation["requestBody"]["content"] == {"multipart/form-data": {"schema": schema}}
    assert "422" not in operation["responses"]


def test_a_route_that_takes_json_or_a_form_describes_both() -> None:
    content = with_form(body=Thing, form=Caption)["paths"]["/photos"]["post"]["requestBody"]["content"]
    assert list(content) == ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"]


def test_operation_ids_are_unique() -> None:
    paths: dict[str, dict[str, Any]] = documented().openapi()["paths"]
    ids = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(ids) == len(set(ids)) == 10


async def test_the_page_is_ours_alone_and_its_policy_admits_its_own_script() -> None:
    async with TestClient(documented()) as client:
        document = await client.get("/openapi.json")
        page = await client.get("/docs")
    assert document.json()["info"]["title"] == "Things"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'data-document="/openapi.json"' in page.text
    assert not re.search(r"(?:src|href)=.?https?:|url\(|@import|//[a-z]+\.", page.text)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"<[^>]* (?:style|on\w+)=", page.text)


async def test_the_page_of_a_mounted_app_finds_its_document_and_a_title_is_only_text() -> None:
    app = App(title="<script>alert(1)</script>")
    app.docs("/spec.json", "/help")
    page = await ask(app, "GET", "/api/help", root_path="/api")
    assert 'data-document="/api/spec.json"' in page.text
    assert "<script>alert" not in page.text


class Switches(msgspec.Struct):
    on: bool = False
    maybe: bool | None = None
    all: list[bool] = []
    more: "Switches | None" = None


class State(msgspec.Struct):
    is_on: bool


@pytest.mark.parametrize(
    "given", [True, False, 0, 1, 1.0, "yes", "NO", "True", "f", "ON", "0", 2, "maybe", "", "yes ", [], None]
)
async def test_the_schema_of_a_boolean_in_a_body_accepts_what_the_app_accepts(given: object) -> None:
    app = App()

    @app.post("/switches", body=Switches, response=State)
    async def switch(request: Request) -> Response:
        await request.typed(Switches)
        return Response()

    schemas = app.openapi()["components"]["schemas"]
    assert schemas["State"]["properties"]["is_on"] == {"type": "boolean"}  # an answer has true or false
    for body in ({"on": given}, {"all": [given]}, {"more": {"on": given}}):
        accepted = (await ask(app, "POST", "/switches", json=body)).status_code != 422
        validator = Draft202012Validator({"$ref": "#/components/schemas/Switches", "components": {"schemas": schemas}})
        assert validator.is_valid(body) is accepted


def test_the_files_of_a_form_are_a_list_and_not_one_text() -> None:
    with pytest.raises(TypeError, match=r"pass a list of the names, such as \['photo'\]"):
        App().post("/photos", files="photo")


def test_a_parameter_that_is_json_is_described_by_the_schema_of_its_value() -> None:
    value = {"type": "object", "additionalProperties": {"type": "integer"}}
    json = {"contentMediaType": "application/json", "contentSchema": value}
    text = Annotated[str, msgspec.Meta(description="Numbers.", extra_json_schema=json)]
    model = msgspec.defstruct("Numbers", [("needed", text), ("numbers", text | None, None)])
    app = App()

    app.get("/things", query=model)(empty)

    document = app.openapi()
    OpenAPIV31SpecValidator(document).validate()
    described = {"in": "query", "description": "Numbers.", "content": {"application/json": {"schema": value}}}
    assert document["paths"]["/things"]["get"]["parameters"] == [
        {"name": "needed", "required": True, **described},
        {"name": "numbers", "required": False, **described},
    ]
