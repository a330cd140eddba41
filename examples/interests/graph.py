"""The graph: people, interests and their links in an embedded database, with queries in Cypher."""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .names import Match, Names, fold
from .query import Search, Subject
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
_PEOPLE = "MATCH (p:person)"
_INTERESTS = "MATCH (i:interest)"
_LINKS = "COUNT {{ MATCH (p:person)-[:PERSON_has_INTEREST]->(i:interest){} }}"
PEOPLE_BY_INTERESTS = f"{_PEOPLE} RETURN p.person_name, {_LINKS.format('')}"
INTERESTS_BY_PEOPLE = f"{_INTERESTS} RETURN i.interest_name, {_LINKS.format('')}"
SHARING_WITH = (
    "MATCH (o:person)-[:PERSON_has_INTEREST]->(i:interest)<-[:PERSON_has_INTEREST]-(p:person) "
    "WHERE o.person_name = $person AND p.person_name <> $person RETURN p.person_name, count(i)"
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
        self.interests = Names(tables.interests.values(), any_part=False)
        links = [(tables.people[person], tables.interests[interest]) for person, interest in tables.links]
        self._position = {link: position for position, link in enumerate(links)}
        self._interest_order = {name: position for position, name in enumerate(self.interests.all)}
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
        return Rows(self._sorted(Subject.PEOPLE, names), cypher)

    def search(self, search: Search) -> Rows:
        """Return what a search finds: people in alphabetical order, interests in the order of their file."""
        query, parameters = _search_query(search, self._number_of(search.find.other))
        names, cypher = self._query(query, parameters)
        return Rows(self._sorted(search.find, names), cypher)

    def ranks(self, find: Subject) -> tuple[list[tuple[str, int]], str]:
        """Return the number of links of all people or interests, in the order of `search`, and the query."""
        return self._counted(find, PEOPLE_BY_INTERESTS if find is Subject.PEOPLE else INTERESTS_BY_PEOPLE, {})

    def sharing_with(self, person: str) -> tuple[list[tuple[str, int]], str]:
        """Return who shares interests with a person, the most first, with their number, and the query."""
        ranks, cypher = self._counted(Subject.PEOPLE, SHARING_WITH, {"person": person})
        return sorted(ranks, key=lambda rank: -rank[1]), cypher

    def _counted(
        self, find: Subject, query: str, parameters: dict[str, Parameter]
    ) -> tuple[list[tuple[str, int]], str]:
        rows, cypher = self._rows(query, parameters)
        counts = dict(rows)
        return [(name, counts[name]) for name in self._sorted(find, list(counts))], cypher

    def _number_of(self, subject: Subject) -> int:
        return len((self.people if subject is Subject.PEOPLE else self.interests).all)

    def _sorted(self, find: Subject, names: list[str]) -> list[str]:
        if find is Subject.PEOPLE:
            return sorted(names, key=lambda name: (fold(name), name))
        return sorted(names, key=self._interest_order.__getitem__)

    def _in_data_order(self, person: str, interests: list[str]) -> list[str]:
        return sorted(interests, key=lambda interest: self._position[person, interest])

    def _add(self, statement: str, rows: list[dict[str, str]]) -> None:
        for start in range(0, len(rows), _BATCH):
            self._connection.execute(statement, {"rows": rows[start : start + _BATCH]})

    def _query(self, query: str, parameters: dict[str, Parameter]) -> tuple[list[str], str]:
        rows, cypher = self._rows(query, parameters)
        return [name for (name,) in rows], cypher

    def _rows(self, query: str, parameters: dict[str, Parameter]) -> tuple[Sequence[Any], str]:
        with self._lock:
            result = self._connection.execute(query, parameters)
            # Only several statements in one text return a list.
            assert not isinstance(result, list)
            return result.get_all(), written_out(query, parameters)


def open_graph(folder: Path) -> Graph:
    """Return the graph of a folder, loaded at the first call. Raises `DataError` if the folder cannot be loaded."""
    with _opening:
        return _open(folder)


_opening = threading.Lock()


@cache
def _open(folder: Path) -> Graph:
    return Graph(read_tables(folder))


def _search_query(search: Search, all_links: int) -> tuple[str, dict[str, Parameter]]:
    """Return a search in Cypher: one condition for each of its fields."""
    match, name, linked = (_PEOPLE, "p.person_name", "i.interest_name")
    if search.find is Subject.INTERESTS:
        match, name, linked = (_INTERESTS, "i.interest_name", "p.person_name")
    fields = {
        "all": (search.all, "= $number"),
        "any": (search.any, ">= 1"),
        "one": (search.one, "= 1"),
        "none": (search.none, "= 0"),
    }
    conditions: list[str] = []
    parameters: dict[str, Parameter] = {}
    for field, (matches, comparison) in fields.items():
        if matches:
            conditions.append(f"{_LINKS.format(f' WHERE {linked} IN $with_{field}')} {comparison}")
            parameters[f"with_{field}"] = _distinct_names(matches)
    if search.all:
        parameters["number"] = len(_distinct_names(search.all))
    if search.excluded:
        conditions.append(f"NOT {name} IN $excluded")
        parameters["excluded"] = _distinct_names(search.excluded)
    if search.number:
        amount = search.number.amount
        conditions.append(f"{_LINKS.format('')} {search.number.comparison} $links")
        parameters["links"] = amount if isinstance(amount, int) else all_links
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"{match}{where} RETURN {name}", parameters


def _distinct_names(matches: Sequence[Match]) -> list[str]:
    # A dict removes duplicates and keeps the order.
    return list(dict.fromkeys(match.name for match in matches if match.name))


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
