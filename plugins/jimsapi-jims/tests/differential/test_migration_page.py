"""The page for those who come from jims-api shows the differences as the test holds them."""

from differential.differences import PAGE, page


def test_the_page_has_the_differences_as_they_are_listed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run python plugins/jimsapi-jims/tests/differential/differences.py"
