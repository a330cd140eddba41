"""The graph against the files it was loaded from, and how it is opened."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest

from examples.interests.graph import Graph, open_graph
from examples.interests.tables import DataError, Tables

Folder = Callable[..., Path]
ROOT = Path(__file__).parents[2]


def interests_in_file(tables: Tables, person: str) -> list[str]:
    return [tables.interests[interest] for key, interest in tables.links if tables.people[key] == person]


def test_every_persons_interests_are_those_of_the_files_in_their_order(graph: Graph, tables: Tables) -> None:
    for person in tables.people.values():
        assert graph.interests_of(person).names == interests_in_file(tables, person)


def test_people_are_named_in_alphabetical_order_whatever_their_accents(graph: Graph) -> None:
    assert graph.fans_of(["Quokkas"]).names == ["Geneva Durben", "Iñaki Etxarte", "Siobhán O'Dwyer", "Zoë Vandermeer"]
    people = {"1": "Zora", "2": "Ängela", "3": "bo", "4": "Ann"}
    small = Graph(Tables(people, {"i": "Go"}, [(person, "i") for person in people]))
    assert small.fans_of(["Go"]).names == ["Ängela", "Ann", "bo", "Zora"]


def test_common_interests_are_the_intersection_in_the_first_persons_order(graph: Graph, tables: Tables) -> None:
    for number in (2, 3):
        for people in combinations(tables.people.values(), number):
            shared = set.intersection(*(set(interests_in_file(tables, person)) for person in people))
            expected = [interest for interest in interests_in_file(tables, people[0]) if interest in shared]
            assert graph.interests_in_common(people).names == expected


def pasted(graph: Graph, cypher: str) -> list[str]:
    """What the text gives when it is asked as it stands, without parameters."""
    result = graph._connection.execute(cypher)
    assert not isinstance(result, list)
    return [name for (name,) in result.get_all()]


HOSTILE = [
    "O'Brien",
    "back\\slash",
    "ends in \\",
    "' OR true //",
    "$person",
    "new\nline",
    'say "so"',
    "日本",
    "{a: 1}",
    "\t",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_the_cypher_that_is_shown_can_be_pasted_and_asks_the_same(name: str) -> None:
    graph = Graph(Tables(people={"p": name, "q": "Somebody"}, interests={"i": name}, links=[("p", "i")]))
    for rows in (graph.interests_of(name), graph.fans_of([name])):
        assert rows.names == [name]
        assert pasted(graph, rows.cypher) == [name]
    both = graph.interests_in_common([name, "Somebody"])
    assert pasted(graph, both.cypher) == both.names == []


def test_a_folder_is_opened_once_even_if_many_ask_first(folder: Folder) -> None:
    path = folder()
    with ThreadPoolExecutor(8) as threads:
        graphs = [*threads.map(open_graph, [path] * 8)]
    assert {id(graph) for graph in graphs} == {id(graphs[0])}
    assert graphs[0].interests_of("Ann Lee").names == ["Go", "Chess"]


def test_a_folder_that_failed_is_tried_again(folder: Folder) -> None:
    path = folder(person=None)
    with pytest.raises(DataError):
        open_graph(path)
    assert open_graph(folder()).people.all == ["Ann Lee", "Bo Dahl"]


def test_more_rows_than_a_batch_are_all_loaded() -> None:
    people = {f"p{n}": f"Person {n}" for n in range(2500)}
    graph = Graph(Tables(people, {"i": "Everything"}, [(person, "i") for person in people]))
    assert set(graph.fans_of(["Everything"]).names) == set(people.values())


def test_without_the_database_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ladybug", None)
    with pytest.raises(DataError, match=r"pip install 'jimsapi\[examples\]'"):
        Graph(Tables({}, {}, []))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, at the repository's root as the example is served."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_importing_the_app_loads_neither_the_database_nor_the_http_client_of_the_model() -> None:
    loaded = python(
        "import sys, jimsapi; before = set(sys.modules); import examples.interests; "
        "print({'ladybug', 'httpx'} & (set(sys.modules) - before))"
    )
    assert loaded.stdout == "set()\n", loaded.stderr


def test_a_bad_folder_stops_the_start(tmp_path: Path) -> None:
    started = python("import examples.interests", INTERESTS_DATA=str(tmp_path))
    assert started.returncode == 1
    assert started.stderr.endswith(f"DataError: {tmp_path}/person.csv: the file is missing\n")
