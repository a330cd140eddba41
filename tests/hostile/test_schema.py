"""The server keeps to its own OpenAPI document, and the check of that finds what does not."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.hostile import schema, schema_hooks
from tests.hostile.schema import check, without_the_unsaid
from tests.serving import Served


def test_every_operation_answers_as_the_document_says() -> None:
    status, report = check(examples=15, seed=1)
    assert status == 0, report


def test_an_answer_that_the_document_does_not_have_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(document: dict[str, Any]) -> dict[str, Any]:
        document = without_the_unsaid(document)
        del document["paths"]["/api/v1/threads/{id}"]["get"]["responses"]["404"]
        return document

    monkeypatch.setattr(schema, "without_the_unsaid", wrong)
    status, report = check(examples=5, seed=1)
    assert status == 1
    assert "GET /api/v1/threads/{id}" in report
    assert "[404] Not Found" in report


@pytest.mark.parametrize("part", ["query", "body"])
def test_text_with_a_nul_is_not_held_against_the_document(part: str) -> None:
    for text, kept in (("a", True), ("a\0b", False)):
        assert schema_hooks.filter_case(None, SimpleNamespace(**{part: {"contact_id": text}})) is kept


def test_the_document_shows_every_route_that_is_checked() -> None:
    with Served("--plugins", "none") as served:
        document = httpx.get(f"{served.url}/openapi.json", trust_env=False).json()
    paths = set(document["paths"])
    assert set(without_the_unsaid(document)["paths"]) == paths - {"/api/v1/chat/ws"}
