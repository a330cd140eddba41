"""The graph: people, interests and their links in an embedded database, with queries in Cypher."""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .names import Names, fold
from .tables import DataError, Tables, read_tables

if TYPE_CHECKING:
    import ladybug

INTERESTS_OF = (
    "MATCH (p:person)-[:PERSON_has_INTEREST]->(i:interest) WHERE p.person_name = $person RETURN i.interest_name"
)
FANS_OF = "MATCH (p:person)-[:PERSON_has_INTEREST]->(i:interest) WHERE i.interest_name = $interest RETURN p.person_name"
FANS_OF_ALL = (
    "MATCH (p:person)-[:PERSON_has_INTEREST]->(i:interest) WHERE i.interest_name IN $interests "
    "WITH p, count(DISTINCT i) AS shared WHERE shared = $number RETURN p.person_name"
)
IN_COMMON = (
    "MATCH (p:person)-[:PERSON_has_INTEREST]->(i:interest) WHERE p.person_name IN $people "
    "WITH i, count(DISTINCT p) AS sharing WHERE sharing = $number RETURN i.interest_name"
)

_SCHEMA = [
    "CREATE NODE TABLE person(person_id STRING PRIMARY KEY, person_name STRING)",
    "CREATE NODE TABLE interest(interest_id STRING PRIMARY KEY, interest_name STRING)",
    "CREATE REL TABLE PERSON_has_INTEREST(FROM person TO interest)",
]
_ADD_PEOPLE = "UNWIND $rows AS row CREATE (:person {person_id: row.id, person_name: row.name})"
_ADD_INTERESTS = "UNWIND $rows AS row CREATE (:interest {interest_id: row.id, interest_name: row.name})"
_ADD_LINKS = (
    "UNWIND $rows AS row MATCH (p:person {person_id: row.person}), (i:interest {interest_id: row.interest}) "
    "CREATE (p)-[:PERSON_has_INTEREST]->(i)"
)
# The cost of one UNWIND grows with the square of its rows.
_BATCH = 1000
# Bytes. By default, the database uses most of the memory for its buffers, and 8 TB of address space.
_BUFFER_BYTES = 256 << 20
_MAX_BYTES = 1 << 30

Parameter = str | int | list[str]


@dataclass(frozen=True)
class Rows:
    """The result of a query: names, and the query as a person would write it."""

    names: list[str]
    cypher: str


class Graph:
    """The data of one folder, in memory. Its methods block, for less than a millisecond; any thread may call them."""

    def __init__(self, tables: Tables) -> None:
        """Load the tables. Raises `DataError` if the database is not installed."""
        self.people = Names(tables.people.values())
        self.interests = Names(tables.interests.values())
        links = [(tables.people[person], tables.interests[interest]) for person, interest in tables.links]
        self._position = {link: position for position, link in enumerate(links)}
        # A connection runs one query at a time. This lock does not rely on locks inside the library.
        self._lock = threading.Lock()
        self._connection = _connect()
        for statement in _SCHEMA:
            self._connection.execute(statement)
        self._add(_ADD_PEOPLE, [{"id": key, "name": name} for key, name in tables.people.items()])
        self._add(_ADD_INTERESTS, [{"id": key, "name": name} for key, name in tables.interests.items()])
        self._add(_ADD_LINKS, [{"person": person, "interest": interest} for person, interest in tables.links])

    def interests_of(self, person: str) -> Rows:
        """Return a person's interests, in data order."""
        names, cypher = self._query(INTERESTS_OF, {"person": person})
        return Rows(self._in_data_order(person, names), cypher)

    def interests_in_common(self, people: Sequence[str]) -> Rows:
        """Return the interests that all these (different) people share, in the data order of the first person's."""
        names, cypher = self._query(IN_COMMON, {"people": [*people], "number": len(people)})
        return Rows(self._in_data_order(people[0], names), cypher)

    def fans_of(self, interests: Sequence[str]) -> Rows:
        """Return the people who have all these (different) interests, in alphabetical order."""
        if len(interests) == 1:
            names, cypher = self._query(FANS_OF, {"interest": interests[0]})
        else:
            names, cypher = self._query(FANS_OF_ALL, {"interests": [*interests], "number": len(interests)})
        return Rows(sorted(names, key=lambda name: (fold(name), name)), cypher)

    def _in_data_order(self, person: str, interests: list[str]) -> list[str]:
        return sorted(interests, key=lambda interest: self._position[person, interest])

    def _add(self, statement: str, rows: list[dict[str, str]]) -> None:
        for start in range(0, len(rows), _BATCH):
            self._connection.execute(statement, {"rows": rows[start : start + _BATCH]})

    def _query(self, query: str, parameters: dict[str, Parameter]) -> tuple[list[str], str]:
        with self._lock:
            result = self._connection.execute(query, parameters)
            # Only several statements in one text return a list.
            assert not isinstance(result, list)
            return [name for (name,) in result.get_all()], written_out(query, parameters)


def open_graph(folder: Path) -> Graph:
    """Return the graph of a folder, loaded at the first call. Raises `DataError` if the folder cannot be loaded."""
    with _opening:
        return _open(folder)


_opening = threading.Lock()


@cache
def _open(folder: Path) -> Graph:
    return Graph(read_tables(folder))


def written_out(query: str, parameters: dict[str, Parameter]) -> str:
    """Return the query with its parameters as Cypher literals, so that a person can read or paste it."""
    return re.sub(r"\$(\w+)", lambda found: _literal(parameters[found[1]]), query)


def _literal(value: Parameter) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
        return f"'{escaped}'"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return str(value)


def _connect() -> "ladybug.Connection":
    # Imported here, so that a process that gets no question does not load it.
    try:
        import ladybug
    except ImportError:
        raise DataError("the interests example needs the database `ladybug`: pip install 'jimsapi[examples]'") from None
    database = ladybug.Database(":memory:", buffer_pool_size=_BUFFER_BYTES, max_db_size=_MAX_BYTES, max_num_threads=1)
    return ladybug.Connection(database)
