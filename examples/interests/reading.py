"""Checks the query that a model has read in a question: it is data from outside."""

import json
import re
from collections.abc import Mapping
from typing import Any

from .names import Match, Names, fold
from .query import Check, Count, Quantity, Query, Ranking, Search, Subject

_LINKS = ("all", "any", "exactly_one", "none")
"""The fields with names at the other end of links."""

_SUBJECTS = {"people": Subject.PEOPLE, "interests": Subject.INTERESTS}
_QUANTITIES = {"every": Quantity.EVERY, "some": Quantity.SOME, "none": Quantity.NONE}
_KNOWN_FIELDS = {"ask", "find", "except", "people", "quantity", *_LINKS}
_FENCE = re.compile(r"\A```(?:json)?\n(.*)\n```\Z", re.DOTALL)


class ReadingError(Exception):
    """The model's reading is not a query, or not one of this question."""


def parse_query(text: str, question: str, people: Names, interests: Names) -> Query | None:
    """Return the query; None if the model says that the graph cannot answer the question. Raises `ReadingError`."""
    fields = _fields(text)
    names = {Subject.PEOPLE: people, Subject.INTERESTS: interests}
    query = _query(fields, question, names)
    if query is not None:
        _check_no_name_is_missing(query, question, names)
    return query


def _fields(text: str) -> dict[str, Any]:
    fenced = _FENCE.match(text)
    try:
        fields = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        raise ReadingError("the model's reading is not JSON") from None
    if not isinstance(fields, dict):
        raise ReadingError("the model's reading is not an object")
    unknown = fields.keys() - _KNOWN_FIELDS
    if unknown:
        raise ReadingError("the model's reading has an unknown field")
    return fields


def _query(fields: dict[str, Any], question: str, names: Mapping[Subject, Names]) -> Query | None:
    ask = fields.get("ask")
    if ask == "unknown":
        return None
    if ask == "check":
        search = _search(Subject.PEOPLE, fields, question, names)
        quantity = _choice(fields.get("quantity", "every"), _QUANTITIES, "quantity")
        return Check(search, quantity, _matches(fields, "people", Subject.PEOPLE, question, names))
    find = _choice(fields.get("find"), _SUBJECTS, "find")
    search = _search(find, fields, question, names)
    if ask == "list":
        return search
    if ask == "count":
        return Count(search)
    if ask in ("most", "fewest") and search == Search(find):
        return Ranking(find, most=ask == "most")
    raise ReadingError("the model's reading has no kind of question")


def _search(find: Subject, fields: dict[str, Any], question: str, names: Mapping[Subject, Names]) -> Search:
    linked = {field: _matches(fields, field, find.other, question, names) for field in _LINKS}
    search = Search(
        find,
        all=linked["all"],
        any=linked["any"],
        one=linked["exactly_one"],
        none=linked["none"],
        excluded=_matches(fields, "except", find, question, names),
    )
    if "people" in fields and fields.get("ask") != "check":
        raise ReadingError("the model's reading has people without a check")
    return search


def _matches(
    fields: dict[str, Any], field: str, subject: Subject, question: str, names: Mapping[Subject, Names]
) -> tuple[Match, ...]:
    written = fields.get(field, [])
    if not isinstance(written, list) or not all(isinstance(name, str) and fold(name) for name in written):
        raise ReadingError(f"the model's reading has no list of names in {field!r}")
    words = f" {fold(question)} "
    # A name may have a possessive or an ending that the model leaves out, so only its beginning must be a word's.
    if any(f" {fold(name)}" not in words for name in written):
        raise ReadingError("the model's reading has a name that the question does not have")
    return tuple(names[subject].find(name) for name in written)


def _choice(value: Any, choices: Mapping[str, Any], field: str) -> Any:
    if not isinstance(value, str) or value not in choices:
        raise ReadingError(f"the model's reading has an invalid {field!r}")
    return choices[value]


def _check_no_name_is_missing(query: Query, question: str, names: Mapping[Subject, Names]) -> None:
    read = {fold(match.name or match.written) for _, match in query.mentions()}
    words = f" {fold(question)} "
    for kind in names.values():
        for name in kind.all:
            if f" {fold(name)} " in words and not any(fold(name) in found for found in read):
                raise ReadingError("the model's reading lacks a name that the question has")
