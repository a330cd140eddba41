"""Lists of names with "and", "or" and "not"."""

import pytest

from examples.interests.english import ENGLISH
from examples.interests.lists import ListError, MixedError, Terms, read_list


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("<0>", Terms(all=(0,))),
        ("<0> and <1>", Terms(all=(0, 1))),
        ("<0> , <1> , and <2>", Terms(all=(0, 1, 2))),
        ("<0> 's and <1> 's", Terms(all=(0, 1))),
        ("both <0> and <1>", Terms(all=(0, 1), together=True)),
        ("<0> and <1> both", Terms(all=(0, 1), together=True)),
        ("all <0> , <1> and <2>", Terms(all=(0, 1, 2), together=True)),
        ("<0> or <1>", Terms(any=(0, 1))),
        ("either <0> , <1> or <2>", Terms(any=(0, 1, 2))),
        ("<0> , <1> , or both", Terms(any=(0, 1))),
        ("<0> or <1> but not both", Terms(one=(0, 1))),
        ("either <0> or <1> , but not both", Terms(one=(0, 1))),
        ("neither <0> nor <1>", Terms(none=(0, 1))),
        ("neither <0> , <1> nor <2>", Terms(none=(0, 1, 2))),
        ("not <0>", Terms(none=(0,))),
        ("<0> but not <1>", Terms(all=(0,), none=(1,))),
        ("<0> and <1> , but not <2> or <3>", Terms(all=(0, 1), none=(2, 3))),
        ("both <0> and <1> but not <2>", Terms(all=(0, 1), none=(2,), together=True)),
        ("<0> , not <1> and not <2>", Terms(all=(0,), none=(1, 2))),
        ("<0> or <1> but not <2>", Terms(any=(0, 1), none=(2,))),
    ],
)
def test_a_list_has_one_meaning(text: str, terms: Terms) -> None:
    assert read_list(text, ENGLISH.roles) == terms


@pytest.mark.parametrize(
    "text",
    [
        "<0> and <1> or <2>",
        "<0> or <1> , <2>",
        "<0> or <1> and not <2>",
        "<0> but not <1> and <2>",
        "not <0> and <1>",
    ],
)
def test_a_list_with_two_meanings_has_none(text: str) -> None:
    with pytest.raises(MixedError):
        read_list(text, ENGLISH.roles)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "and",
        "<0> <1>",
        "<0> but <1>",
        "both <0>",
        "both <0> or <1>",
        "either <0> and <1>",
        "neither <0>",
        "neither <0> and <1>",
        "<0> nor <1>",
        "<0> and <1> but not both",
        "not <0> but not both",
        "<0> but not <1> both",
        "and <0>",
        "<0> and",
    ],
)
def test_other_lists_are_errors(text: str) -> None:
    with pytest.raises(ListError):
        read_list(text, ENGLISH.roles)
