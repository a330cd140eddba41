"""Names of files and media types, as functions."""

import pytest
from jimsapi_files.media_types import essence, is_pattern, matches, sent_type
from jimsapi_files.names import InvalidName, checked_name, disposition, name_in_disposition


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_no_name(name: str) -> None:
    with pytest.raises(InvalidName):
        checked_name(name)


def test_a_disposition_of_any_text_is_one_line_of_ascii() -> None:
    every = "".join(map(chr, [*range(0x400), 0x202E, 0xD800, 0xFFFF, 0x1F600]))
    for inline in (True, False):
        header = disposition(every, inline=inline)
        assert header.isascii()
        assert header.isprintable()
        assert header.count('"') == 2


@pytest.mark.parametrize("header", ["; " * 2000, '";' * 2000, '; filename="' + "\\a" * 2000, "; filename*" * 300])
def test_a_long_disposition_is_searched_quickly(header: str) -> None:
    assert len(header) <= 4096
    name_in_disposition(header)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Text/Plain; charset=utf-8", "text/plain"),
        (" image/png ", "image/png"),
        ("application/vnd.ms-excel", "application/vnd.ms-excel"),
        ("*/*", None),
        ("image/*", None),
        ("", None),
        ("text/plain\n", "text/plain"),
        ("text/pl\nain", None),
    ],
)
def test_a_media_type_is_read_without_its_parameters(text: str, kind: str | None) -> None:
    assert essence(text) == kind


def test_patterns_match_types() -> None:
    texts = ("*/*", "image/*", "image/png", "*", "*/png", "image", "image/", "")
    assert [text for text in texts if is_pattern(text)] == ["*/*", "image/*", "image/png"]
    assert matches("image/png", ["IMAGE/*"])
    assert matches("image/png", ["text/plain", "image/png"])
    assert not matches("image/png", ["image/gif", "text/*"])
    assert not matches("image/png", [])


def test_a_type_that_begins_like_an_image_is_none() -> None:
    assert sent_type("imagery/png") == "application/octet-stream"
