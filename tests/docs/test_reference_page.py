"""The reference of the options says what the option classes say."""

import runpy

from tests.docs.snippets import ROOT


def test_the_page_is_what_the_option_classes_say() -> None:
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["reference"]()
    assert written == generated, "an option changed: run `make docs`"
