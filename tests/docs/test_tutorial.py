"""The tutorial, walked from start to end: every file written, every command run, and what it prints compared."""

from pathlib import Path

from tests.docs.snippets import ROOT
from tests.docs.walk import steps, walk

PAGE = "docs/tutorial.md"


def test_somebody_who_follows_the_page_gets_what_it_says(tmp_path: Path) -> None:
    walk(PAGE, tmp_path)


def test_the_page_is_made_of_files_commands_and_what_they_print() -> None:
    assert {step.language for step in steps(PAGE)} == {"python", "sh", "text", "toml"}


def test_the_readme_leads_to_the_page() -> None:
    assert f"({PAGE})" in (ROOT / "README.md").read_text(encoding="utf-8")
