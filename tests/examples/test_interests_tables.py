"""Reading the CSV files: what is taken, and what is refused with which words."""

from collections.abc import Callable
from pathlib import Path

import pytest

from examples.interests.tables import SHIPPED, DataError, Tables, data_folder, read_tables

Folder = Callable[..., Path]


def test_a_folder_is_read_in_the_order_of_its_files(folder: Folder) -> None:
    assert read_tables(folder()) == Tables(
        people={"p1": "Ann Lee", "p2": "Bo Dahl"},
        interests={"i1": "Chess", "i2": "Go"},
        links=[("p1", "i2"), ("p1", "i1"), ("p2", "i1")],
    )


def test_a_byte_order_mark_other_columns_spaces_and_blank_lines_do_no_harm(folder: Folder) -> None:
    people = "\ufeffperson_id,age,person_name\r\np1,40, Ann Lee \r\n\r\np2,,Bo Dahl\r\n"
    assert read_tables(folder(person=people)).people == {"p1": "Ann Lee", "p2": "Bo Dahl"}


def test_a_name_may_hold_a_comma_and_quotes(folder: Folder) -> None:
    interests = 'interest_id,interest_name\ni1,"Rivers, Canals"\ni2,"The ""Net"""\n'
    assert [*read_tables(folder(interest=interests)).interests.values()] == ["Rivers, Canals", 'The "Net"']


def test_a_link_that_stands_twice_is_one_link(folder: Folder) -> None:
    links = "person_id,interest_id\np1,i1\np2,i1\np1,i1\n"
    assert read_tables(folder(person_has_interest=links)).links == [("p1", "i1"), ("p2", "i1")]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("person", None, "person.csv: the file is missing"),
        ("interest", None, "interest.csv: the file is missing"),
        ("person_has_interest", None, "person_has_interest.csv: the file is missing"),
        ("person", "", "person.csv: column 'person_id' is missing in the first line"),
        ("person", "person_id,name\np1,Ann\n", "person.csv: column 'person_name' is missing in the first line"),
        ("interest", "interest_name\nChess\n", "interest.csv: column 'interest_id' is missing in the first line"),
        ("person_has_interest", "person_id\np1\n", "person_has_interest.csv: column 'interest_id' is missing"),
        ("person_has_interest", "person_id,interest_id\np1,i1\np9,i1\n", "line 3: person_id 'p9' is not in person.csv"),
        ("person_has_interest", "person_id,interest_id\np1,i9\n", "line 2: interest_id 'i9' is not in interest.csv"),
        ("person", "person_id,person_name\np1,Ann\np1,Bo\n", "person.csv, line 3: person_id 'p1' is there twice"),
        ("interest", "interest_id,interest_name\ni1,Go\ni2,Go\n", "line 3: interest_name 'Go' is already that of 'i1'"),
        ("person", "person_id,person_name\np1, \n", "person.csv, line 2: person_name is empty"),
        ("person", "person_id,person_name\np1\n", "person.csv, line 2: person_name is empty"),
        ("person", b"person_id,person_name\np1,Zo\xeb\n", "person.csv: is not UTF-8 text"),
        ("person", 'person_id,person_name\np1,"Ann\n', "person.csv: is not valid CSV"),
    ],
)
def test_bad_data_is_refused_in_one_line_that_names_the_file_and_the_fault(
    folder: Folder, name: str, content: str | bytes | None, fault: str
) -> None:
    path = folder(**{name: content})
    with pytest.raises(DataError) as refusal:
        read_tables(path)
    message = str(refusal.value)
    assert fault in message
    assert str(path) in message
    assert "\n" not in message


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"INTERESTS_DATA: there is no folder .*nowhere"):
        read_tables(tmp_path / "nowhere")


def test_a_folder_in_place_of_a_file_is_refused(folder: Folder) -> None:
    path = folder(person=None)
    (path / "person.csv").mkdir()
    with pytest.raises(DataError, match=r"person\.csv: cannot be read"):
        read_tables(path)


def test_the_environment_names_the_folder_and_empty_means_the_shipped_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_folder() == SHIPPED
    monkeypatch.setenv("INTERESTS_DATA", "")
    assert data_folder() == SHIPPED
    monkeypatch.setenv("INTERESTS_DATA", "/some/where")
    assert data_folder() == Path("/some/where")


def test_the_shipped_set_holds_geneva_durben_and_the_awkward_cases(tables: Tables) -> None:
    geneva = next(key for key, name in tables.people.items() if name == "Geneva Durben")
    assert [tables.interests[interest] for person, interest in tables.links if person == geneva] == [
        "Quokkas",
        "Slide Rules",
        "Mosaic",
        "Eating Disorders",
        "Tantric",
        "Marrakesh",
    ]
    assert len(tables.people) == 12
    assert len(tables.interests) == 30
    assert tables.people.keys() - {person for person, _ in tables.links}, "somebody without interests"
    assert tables.interests.keys() - {interest for _, interest in tables.links}, "an interest that nobody has"
