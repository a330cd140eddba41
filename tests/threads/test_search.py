"""What a search reads of a text, and what it shows of it, at a cost that has a limit."""

import unicodedata

import pytest

from jimsapi.threads import search
from jimsapi.threads.search import MAX_TEXT, parse_query, snippet, text_matches, words_of

LIGATURE = "\ufdfa"
"""One character that stands for eighteen."""


def shown(text: str, query: str, length: int = 40) -> str:
    parsed = parse_query(query)
    assert parsed is not None
    return snippet(text, parsed, length)


@pytest.mark.parametrize("text", ["fox " * 400_000, LIGATURE * 330_000, "今日は" * 100_000, "é" * 1_000_000])
def test_the_cost_of_a_long_text_has_a_limit(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    def words(text: str) -> list[str]:
        nonlocal compared
        compared += len(text[:MAX_TEXT])  # the rest is cut off
        return words_of(text)

    class Counted:
        category = staticmethod(unicodedata.category)

        @staticmethod
        def normalize(form: str, text: str) -> str:
            nonlocal compared
            compared += len(text)
            return unicodedata.normalize(form, text)  # type: ignore[arg-type] # it is a form

    query = parse_query("wombat")
    assert query is not None
    monkeypatch.setattr(search, "words_of", words)
    monkeypatch.setattr(search, "unicodedata", Counted)
    assert not text_matches(text, query)
    assert snippet(text, query, 40)
    assert compared < 12 * MAX_TEXT


def test_words_after_the_beginning_of_a_long_text_are_not_read() -> None:
    text = "x " * (MAX_TEXT // 2 - 3) + "fox bird"
    assert words_of(text)[-1] == "x"  # there are too many words before it
    text = "x" * (MAX_TEXT - 6) + " fox bird"
    assert words_of(text)[1:] == ["fox", "b"]


@pytest.mark.parametrize("gap", [1000, 1020, 1021, 1022, 1023, 1024, 5000])
def test_a_word_is_shown_wherever_it_is(gap: int) -> None:
    for filler in ("a ", "é ", "世"):
        text = (filler * gap)[:gap] + " Quokka 界 " + filler * gap
        assert "Quokka 界" in shown(text, "quokka")
        assert "Quokka 界" in shown(text, "界")


def test_the_first_word_of_several_is_shown() -> None:
    text = "one " * 500 + "quokka " + "two " * 500 + "wombat"
    assert "quokka" in shown(text, "wombat quokka")
    assert shown("今日は" * 100 + "世界", "世界").endswith("世界")


def test_a_word_that_marks_divide_is_shown_with_its_part_of_the_text() -> None:
    text = "one " * 1000 + "E\u0301lan " + "two " * 1000
    assert "E\u0301lan" in shown(text, "élan", 2000)
