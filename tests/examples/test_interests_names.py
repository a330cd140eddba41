"""Finding a name from how a person wrote it."""

import pytest

from examples.interests.names import Match, Names

PEOPLE = Names(
    ["Geneva Durben", "Siobhán O'Dwyer", "Bram and Birgit Okonjo", "Ann Lee", "Ann Poe", "Lee, Mason and Sons"]
)
INTERESTS = Names(["Go", "Caves", "Cloves", "Chips Ahoy!", "Rock & Roll", "the Tides", "C++", "C", "Polish", "polish"])


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("Geneva Durben", "Geneva Durben"),
        ("geneva  DURBEN", "Geneva Durben"),
        ("Siobhan O’Dwyer", "Siobhán O'Dwyer"),
        ("siobhán odwyer", "Siobhán O'Dwyer"),
        ("bram & birgit okonjo", "Bram and Birgit Okonjo"),
    ],
)
def test_case_accents_apostrophes_and_spaces_make_no_other_name(asked: str, name: str) -> None:
    assert PEOPLE.find(asked) == Match(asked, name, exact=True)


@pytest.mark.parametrize(
    ("asked", "name"),
    [("chips ahoy", "Chips Ahoy!"), ("Rock and Roll", "Rock & Roll"), ("tides", "the Tides"), ("the Caves", "Caves")],
)
def test_punctuation_and_an_article_make_no_other_name(asked: str, name: str) -> None:
    assert INTERESTS.find(asked) == Match(asked, name, exact=True)


def test_a_slip_in_a_name_with_an_article_is_found_with_and_without_it() -> None:
    names = Names(["The Aztec Empire", "Tides", "The Tides"])
    for asked in ("Thae Aztec Empire", "The Aztec Empirre", "Aztec Empirre"):
        assert names.find(asked) == Match(asked, "The Aztec Empire", exact=False)
    assert names.find("the tides").name == "The Tides"
    assert names.find("tides").name == "Tides"


def test_of_names_that_differ_only_so_the_one_as_written_is_meant() -> None:
    assert INTERESTS.find("polish").name == "polish"
    assert INTERESTS.find("Polish").name == "Polish"
    assert INTERESTS.find("C++").name == "C++"
    assert INTERESTS.find("C").name == "C"


@pytest.mark.parametrize("asked", ["Genva Durben", "Geneva Drben", "Geneva Durbne", "Gineva Durbin", "eneva Durben"])
def test_a_slip_finds_the_nearest_name_and_is_marked(asked: str) -> None:
    assert PEOPLE.find(asked) == Match(asked, "Geneva Durben", exact=False)


def test_the_only_name_with_that_word_is_found_and_marked() -> None:
    assert PEOPLE.find("Durben") == Match("Durben", "Geneva Durben", exact=False)


def test_words_that_several_names_hold_find_none_of_them() -> None:
    assert PEOPLE.find("Ann") == Match("Ann", candidates=("Ann Lee", "Ann Poe"))


def test_names_that_are_equally_near_find_none_of_them() -> None:
    assert INTERESTS.find("Clves") == Match("Clves", candidates=("Caves", "Cloves"))


@pytest.mark.parametrize("asked", ["Harry Potter", "", "?", "x" * 300, "Genghis Khan", "Anne Boleyn"])
def test_a_name_that_nothing_resembles_is_not_found(asked: str) -> None:
    assert PEOPLE.find(asked) == Match(asked)


def test_a_short_name_is_not_guessed_from_another_short_word() -> None:
    assert INTERESTS.find("Do") == Match("Do")


def test_a_name_that_ends_like_a_possessive_is_still_a_name() -> None:
    names = Names(["Wendy's", "Wendy"])
    assert names.find_owner("Wendy's").name == "Wendy's"
    assert names.find_owner("wendy's").name == "Wendy's"
    assert names.find_owner("Wendy's's").name == "Wendy's"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ann Lee and Geneva Durben", ["Ann Lee", "Geneva Durben"]),
        ("Ann Lee, Ann Poe, and Geneva Durben", ["Ann Lee", "Ann Poe", "Geneva Durben"]),
        ("Ann Lee & Ann Poe", ["Ann Lee", "Ann Poe"]),
        ("Bram and Birgit Okonjo and Ann Lee", ["Bram and Birgit Okonjo", "Ann Lee"]),
        ("Ann Lee and bram and birgit okonjo", ["Ann Lee", "Bram and Birgit Okonjo"]),
        ("Bram and Brigit Okonjo and Ann Le", ["Bram and Birgit Okonjo", "Ann Lee"]),
        ("Lee, Mason and Sons and Bram and Birgit Okonjo", ["Lee, Mason and Sons", "Bram and Birgit Okonjo"]),
        ("Zzz Zzz and Ann Lee", [None, "Ann Lee"]),
        ("Xxx Xxx and Zzz Zzz", [None, None]),
    ],
)
def test_a_list_is_split_where_names_end_and_not_inside_them(text: str, found: list[str | None]) -> None:
    assert [match.name for match in PEOPLE.find_all(text)] == found


def test_each_name_of_a_list_may_carry_a_possessive() -> None:
    found = PEOPLE.find_all("Geneva Durben's and Ann Lee's", owners=True)
    assert [(match.name, match.exact) for match in found] == [("Geneva Durben", True), ("Ann Lee", True)]


def test_a_list_too_long_to_look_up_gives_nothing() -> None:
    assert PEOPLE.find_all(", ".join(["Ann Lee"] * 13)) == []
