"""The page on architecture names files and names that exist."""

import re

import pytest

from tests.docs.snippets import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").replace("`jimsapi/", "`")
FILES = sorted(set(re.findall(r"`([a-z0-9_/]+\.py)`", TEXT)))
NAMES = re.findall(r"`([a-z0-9_/]+\.py)`, `([A-Za-z.]+)`", TEXT)


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_it_names_exists(file: str) -> None:
    assert (ROOT / "jimsapi" / file).is_file() or (ROOT / file).is_file()


@pytest.mark.parametrize(("file", "name"), NAMES)
def test_a_function_or_class_that_it_names_stands_in_its_file(file: str, name: str) -> None:
    source = (ROOT / "jimsapi" / file).read_text(encoding="utf-8")
    for part in name.split("."):
        assert re.search(rf"(?:class|def) {part}\b|^{part}\b", source, re.MULTILINE)
