"""The tutorial, walked from start to end: every file written, every command run, and what it prints compared."""

from pathlib import Path

from tests.docs.walk import walk

PAGE = "docs/tutorial.md"


def test_somebody_who_follows_the_page_gets_what_it_says(tmp_path: Path) -> None:
    walk(PAGE, tmp_path)
