"""Reads and checks the data: three CSV files in a folder."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHIPPED = Path(__file__).parent / "data"


class DataError(Exception):
    """The folder's data cannot be used; the message is one line that names the file and the fault."""


@dataclass(frozen=True)
class Tables:
    """Names by id, and links of (person id, interest id), all in the order of their files."""

    people: dict[str, str]
    interests: dict[str, str]
    links: list[tuple[str, str]]


def data_folder() -> Path:
    """Return the folder that `INTERESTS_DATA` names; the shipped one if it is unset or empty."""
    return Path(os.environ.get("INTERESTS_DATA") or SHIPPED)


def read_tables(folder: Path) -> Tables:
    """Read `person.csv`, `interest.csv` and `person_has_interest.csv` (UTF-8, with a header). Ignores other columns.

    Raises:
        DataError: a file or column is missing, a value is empty, an id or name is not unique, a link has an unknown id.
    """
    if not folder.is_dir():
        raise DataError(f"INTERESTS_DATA: there is no folder {folder}")
    people = _read_names(folder / "person.csv", "person_id", "person_name")
    interests = _read_names(folder / "interest.csv", "interest_id", "interest_name")
    # A dict removes duplicate links and keeps the order.
    links: dict[tuple[str, str], None] = {}
    path = folder / "person_has_interest.csv"
    for line, (person, interest) in _rows(path, "person_id", "interest_id"):
        if person not in people:
            raise DataError(f"{path}, line {line}: person_id {person!r} is not in person.csv")
        if interest not in interests:
            raise DataError(f"{path}, line {line}: interest_id {interest!r} is not in interest.csv")
        links[person, interest] = None
    return Tables(people, interests, list(links))


def _read_names(path: Path, id_column: str, name_column: str) -> dict[str, str]:
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for line, (identifier, name) in _rows(path, id_column, name_column):
        if identifier in names:
            raise DataError(f"{path}, line {line}: {id_column} {identifier!r} is there twice")
        if name in owners:
            # Questions identify people and interests only by name, so each name must be unique.
            raise DataError(f"{path}, line {line}: {name_column} {name!r} is already that of {owners[name]!r}")
        names[identifier] = name
        owners[name] = identifier
    return names


def _rows(path: Path, *columns: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Iterate over the rows: the line number and the values of `columns`."""
    try:
        # utf-8-sig: spreadsheets begin the file with a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in columns if column not in (reader.fieldnames or [])]
            if missing:
                raise DataError(f"{path}: column {missing[0]!r} is missing in the first line")
            for row in reader:
                values = tuple((row[column] or "").strip() for column in columns)
                if not all(values):
                    raise DataError(f"{path}, line {reader.line_num}: {columns[values.index('')]} is empty")
                yield reader.line_num, values
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text") from None
    except csv.Error as error:
        raise DataError(f"{path}: is not valid CSV ({error})") from None
