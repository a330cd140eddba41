"""The reference of the options says what the option classes say."""

import runpy

from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.options import specs
from tests.docs.snippets import ROOT


def test_the_page_is_what_the_option_classes_say() -> None:
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["reference"]()
    assert written == generated, "an option changed: run `make docs`"


def test_every_core_option_has_a_row() -> None:
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for spec in specs(CoreOptions):
        assert f"| `{spec.flag}` | `{spec.variable}" in written
