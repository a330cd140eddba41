"""Every page with code has a test that runs it."""

import re
from pathlib import Path

import pytest

from tests.docs.snippets import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))
    if re.search(r"^```(?!{)\w", path.read_text(encoding="utf-8"), re.MULTILINE)
)
TESTS = [path for pattern in ("tests/docs/test_*.py", "plugins/*/tests/test_*.py") for path in ROOT.glob(pattern)]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_code_blocks_has_a_test_that_reads_it(page: str) -> None:
    assert any(f'"{page}"' in path.read_text(encoding="utf-8") for path in TESTS if path != Path(__file__))
