"""The page for operators names every metric."""

import re

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.docs.snippets import ROOT

pytestmark = pytest.mark.anyio


async def silent(ctx: ThreadContext) -> None:
    """Answers nothing."""


async def test_the_table_of_metrics_names_those_that_a_scrape_gives_and_no_others() -> None:
    written = re.findall(
        r"^\| `(jims_\w+)` \|", (ROOT / "docs" / "operating.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    api = create_api(silent, store="memory:")
    async with TestClient(api):
        families = re.findall(r"^# TYPE (jims_\w+) \w+$", api.metrics(), re.MULTILINE)
    assert sorted(written) == sorted(families)
