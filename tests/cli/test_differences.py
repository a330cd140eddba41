"""Differences of texts: lines side by side, changed words, and texts that would take too long to compare."""

import pytest

from jimsapi.cli.differences import MOST_WORDS, Row, near_changes, side_by_side


def marked(old: str, new: str) -> tuple[str, str]:
    """Both lines, with brackets around what differs."""
    old_pieces, new_pieces = Row(old, new).pieces()
    texts = ["".join(f"[{text}]" if changed else text for text, changed in one) for one in (old_pieces, new_pieces)]
    return texts[0], texts[1]


def test_lines_that_both_texts_have_are_in_one_row() -> None:
    assert side_by_side(["a", "b", "c"], ["a", "x", "y", "c"]) == [
        Row("a", "a"),
        Row("b", "x"),
        Row(None, "y"),
        Row("c", "c"),
    ]
    assert side_by_side([], ["a"]) == [Row(None, "a")]
    assert side_by_side(["a"], []) == [Row("a", None)]
    assert side_by_side([], []) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("We have 4 mugs.", "We have 12 mugs.", ("We have [4] mugs.", "We have [12] mugs.")),
        ("We have mugs.", "We have big mugs.", ("We have mugs.", "We have [big ]mugs.")),
        ("one two three", "one three", ("one [two ]three", "one three")),
        ("same", "same", ("same", "same")),
        ("nothing in common", "completely different", ("[nothing in common]", "[completely different]")),
        ("", "new", ("", "[new]")),
    ],
)
def test_the_changed_words_of_a_line_are_marked(old: str, new: str, expected: tuple[str, str]) -> None:
    assert marked(old, new) == expected


def test_a_line_without_another_is_changed_as_a_whole() -> None:
    assert Row("gone", None).pieces() == ([("gone", True)], [])
    assert Row(None, "new").pieces() == ([], [("new", True)])


def test_the_pieces_of_a_line_are_the_line() -> None:
    old, new = "a  b\tc, d — e", "a b\tc; d — é"
    assert tuple("".join(text for text, _ in pieces) for pieces in Row(old, new).pieces()) == (old, new)


def test_a_very_long_line_is_marked_from_its_first_difference_on() -> None:
    words = " ".join(["word"] * MOST_WORDS * 50)
    old, new = marked(f"{words} old {words}", f"{words} new {words}")
    assert (old, new) == (f"{words} [old {words}]", f"{words} [new {words}]")


def test_a_long_line_with_one_change_near_its_end_is_marked_there_alone() -> None:
    words = " ".join(["word"] * MOST_WORDS * 50)
    assert marked(f"{words} old end", f"{words} new end") == (f"{words} [old] end", f"{words} [new] end")


def test_rows_far_from_a_change_are_one_gap() -> None:
    rows = [Row(str(number), str(number)) for number in range(9)]
    rows[4] = Row("4", "x")
    assert [None if row is None else row.old for row in near_changes(rows, 1)] == [None, "3", "4", "5", None]
    assert list(near_changes(rows, 9)) == rows
    assert list(near_changes([], 1)) == []
