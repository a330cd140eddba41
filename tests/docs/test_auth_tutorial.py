"""The tutorial for authors of auth plugins, walked from start to end: every file written, every command run."""

from pathlib import Path

from tests.docs.walk import walk

PAGE = "docs/write-an-auth-plugin.md"


def test_who_follows_the_page_gets_what_it_says(tmp_path: Path) -> None:
    walk(PAGE, tmp_path)
