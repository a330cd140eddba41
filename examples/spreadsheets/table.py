"""Reads CSV files."""

import csv
import io
from dataclasses import dataclass


class NotATable(Exception):
    """A file is not a CSV file with a header. The message says why."""


@dataclass(frozen=True)
class Table:
    """The names of the columns, and the rows: each has a text for each column."""

    columns: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """Return the values of a column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def read_table(content: str) -> Table:
    """Read a CSV file with a header, separated by commas, semicolons or tabs. Raises `NotATable`."""
    first = content.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        columns, *rows = [row for row in csv.reader(io.StringIO(content), delimiter=separator) if row]
    except ValueError:
        raise NotATable("it is empty") from None
    except csv.Error as error:
        raise NotATable(str(error)) from None
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise NotATable(f"row {number} has {len(row)} values, and the header has {len(columns)}")
    return Table([name.strip() for name in columns], rows)
