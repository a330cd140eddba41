"""The tutorial for authors of auth plugins, walked from start to end: every file written, every command run."""

from pathlib import Path

from tests.docs.snippets import ROOT
from tests.docs.walk import steps, walk

PAGE = "docs/write-an-auth-plugin.md"


def test_who_follows_the_page_gets_what_it_says(tmp_path: Path) -> None:
    walk(PAGE, tmp_path)


def test_the_page_is_made_of_files_commands_and_what_they_print() -> None:
    assert {step.language for step in steps(PAGE)} == {"python", "md", "sh", "text"}


def test_the_other_pages_lead_to_it() -> None:
    assert "(write-an-auth-plugin.md)" in (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    assert f"({PAGE})" in (ROOT / "README.md").read_text(encoding="utf-8")
