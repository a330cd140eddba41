"""What phrases mean: functions from the names in a phrase to a query."""

from dataclasses import replace

from .grammar import Found, Linked, Meaning, NoMeaningError
from .lists import ListError, MixedError
from .names import Match
from .query import (
    EVERY,
    Alike,
    Check,
    Comparison,
    Count,
    Kind,
    Number,
    Profile,
    Quantity,
    Query,
    Question,
    Ranking,
    Search,
    Subject,
)

PEOPLE, INTERESTS = Subject.PEOPLE, Subject.INTERESTS


def counted(meaning: Meaning) -> Meaning:
    """Return the same meaning, or the number of what it finds if the phrase has the group `count`."""

    def count(found: Found) -> Query:
        query = meaning(found)
        return _count(query) if found.has("count") else query

    return count


def _count(query: Query) -> Query:
    if isinstance(query, Search):
        return Count(query)
    if not isinstance(query, Question):
        raise NoMeaningError
    if query.kind is Kind.INTERESTS:
        return Count(people=tuple(query.matches))
    find = PEOPLE if query.kind is Kind.FANS else INTERESTS
    return Count(Search(find, all=tuple(query.matches)))


def _search(find: Subject, linked: Linked, excluded: tuple[Match, ...] = ()) -> Search:
    return Search(find, linked.all, linked.any, linked.one, linked.none, excluded)


def fans(found: Found) -> Query:
    """Return who likes A, A and B, A or B, A but not B."""
    linked = found.linked("interests", INTERESTS)
    excluded = found.plain("except", PEOPLE)
    if linked.terms.is_plain and not excluded:
        return Question(Kind.FANS, [*linked.all])
    return _search(PEOPLE, linked, excluded)


def popularity(found: Found) -> Query:
    """Return how many people like A. The popularity of several interests is not that of all of them together."""
    linked = found.linked("interests", INTERESTS)
    if not linked.terms.is_plain or len(linked.all) != 1:
        raise ListError
    return Count(Search(PEOPLE, all=tuple(linked.all)))


def fans_but_not(found: Found) -> Query:
    """Return who likes A and does not like B, in two lists."""
    linked, others = found.linked("interests", INTERESTS), found.linked("others", INTERESTS)
    if linked.none:
        raise ListError
    return replace(_search(PEOPLE, linked), none=_denied(others))


def fans_of_only(found: Found) -> Query:
    """Return who likes A and nothing else."""
    interests = found.plain("interests", INTERESTS)
    return Search(PEOPLE, all=interests, number=Number("=", len(interests)))


def not_fans(found: Found) -> Query:
    """Return who does not like A, or A or B."""
    return Search(PEOPLE, none=_denied(found.linked("interests", INTERESTS)), excluded=found.plain("except", PEOPLE))


def _denied(linked: Linked) -> tuple[Match, ...]:
    """Return the names behind "does not like". With "and", it is open whether not both or none is meant."""
    if linked.one or linked.none:
        raise ListError
    if len(linked.all) > 1:
        raise MixedError
    return linked.all or linked.any


def interests(found: Found) -> Query:
    """Return what A likes; A and B, each; both A and B; A or B; A but not B."""
    linked = found.linked("people", PEOPLE)
    excluded = found.plain("except", INTERESTS)
    if linked.terms.is_plain and not excluded:
        return Question(Kind.COMMON if linked.terms.together else Kind.INTERESTS, [*linked.all])
    if len(linked.all) > 1 and not linked.terms.together:
        # "What do A and B like, but not C?" may be about each of them or about both.
        raise MixedError
    return _search(INTERESTS, linked, excluded)


def interests_in_common(found: Found) -> Query:
    """Return what A and B have in common, in one list or in two ("A … with B")."""
    people = (*found.plain("people", PEOPLE), *found.plain("others", PEOPLE))
    excluded = found.plain("except", INTERESTS)
    if excluded:
        return Search(INTERESTS, all=people, excluded=excluded)
    return Question(Kind.COMMON, [*people])


def interests_in_common_but_not(found: Found) -> Query:
    """Return what A and B have in common and others do not have."""
    people = found.plain("people", PEOPLE)
    if len(people) < 2:
        raise ListError
    return Search(INTERESTS, all=people, none=_denied(found.linked("others", PEOPLE)))


def interests_but_not(found: Found) -> Query:
    """Return what A, or both A and B, like and others do not."""
    linked = found.linked("people", PEOPLE)
    if not linked.terms.is_plain:
        raise ListError
    if len(linked.all) > 1 and not (linked.terms.together or found.has("both")):
        raise MixedError
    return Search(INTERESTS, all=linked.all, none=_denied(found.linked("others", PEOPLE)))


def interests_denied(found: Found) -> Query:
    """Return what A does not like."""
    return Search(INTERESTS, none=_denied(found.linked("people", PEOPLE)))


def interests_of_only(found: Found) -> Query:
    """Return what only A likes."""
    people = found.plain("people", PEOPLE)
    return Search(INTERESTS, all=people, number=Number("=", len(people)))


def everything(find: Subject) -> Meaning:
    """Return all people or interests."""
    return lambda found: Search(find)


def linked_with_number(find: Subject, comparison: str, amount: int | str) -> Meaning:
    """Return the people or interests with a number of links that the phrase itself gives, such as "nobody"."""
    return lambda found: Search(find, number=Number(comparison, amount))


def numbered(find: Subject) -> Meaning:
    """Return the people or interests with a number of links that the question gives: "more than three"."""

    def search(found: Found) -> Query:
        comparison = found.comparison("comparison") if found.has("comparison") else "="
        return Search(find, number=Number(comparison, found.number("number")))

    return search


def check(found: Found) -> Query:
    """Return whether A, or A and B, or A or B, like something."""
    return _check(found, found.linked("interests", INTERESTS))


def check_which(found: Found) -> Query:
    """Return which of A and B like something."""
    linked = found.linked("people", PEOPLE)
    people = linked.any or linked.all
    if linked.none or linked.one or len(people) < 2:
        raise ListError
    return Check(_search(PEOPLE, found.linked("interests", INTERESTS)), Quantity.SOME, people, negated=True)


def check_negated(found: Found) -> Query:
    """Return whether A does not like something."""
    linked = found.linked("interests", INTERESTS)
    if not linked.terms.is_plain or len(linked.all) > 1:
        raise ListError
    people = found.plain("people", PEOPLE)
    return Check(_search(PEOPLE, linked), people=people, negated=True)


def _check(found: Found, linked: Linked) -> Query:
    people = found.linked("people", PEOPLE)
    if people.one or (people.none and people.all):
        raise ListError
    if linked.none and not (linked.all or linked.any) and len(linked.none) == len(people.all) == 1:
        return Check(Search(PEOPLE, all=linked.none), people=people.all, negated=True)
    search = _search(PEOPLE, linked)
    if people.none:
        return Check(search, Quantity.NONE, people.none)
    if people.any:
        return Check(search, Quantity.SOME, people.any)
    return Check(search, Quantity.EVERY, people.all)


def check_number(comparison: str, amount: int) -> Meaning:
    """Return whether A has interests."""

    def meaning(found: Found) -> Query:
        search = Search(PEOPLE, number=Number(comparison, amount))
        return replace(_plain_check(found), search=search)

    return meaning


def _plain_check(found: Found) -> Check:
    people = found.plain("people", PEOPLE)
    return Check(Search(PEOPLE), people=people)


def check_everybody(quantity: Quantity) -> Meaning:
    """Return whether somebody, everybody or nobody likes something."""

    def meaning(found: Found) -> Query:
        excluded = found.plain("except", PEOPLE)
        if excluded and quantity in (Quantity.EVERY, Quantity.MOST):
            raise NoMeaningError
        return Check(_search(PEOPLE, found.linked("interests", INTERESTS), excluded), quantity)

    return meaning


def check_amount(found: Found) -> Query:
    """Return whether more than three people, or another number of them, like something."""
    number = Number(found.comparison("comparison"), found.number("number"))
    return Check(_search(PEOPLE, found.linked("interests", INTERESTS)), Quantity.SOME, number=number)


def check_anybody_without(found: Found) -> Query:
    """Return whether somebody has no interests."""
    return Check(Search(PEOPLE, number=Number("=", 0)), Quantity.SOME)


def check_anybody_denied(found: Found) -> Query:
    """Return whether there is somebody who does not like something."""
    none = _denied(found.linked("interests", INTERESTS))
    return Check(Search(PEOPLE, none=none), Quantity.SOME)


def ranking(find: Subject, *, most: bool = True, majority: bool = False) -> Meaning:
    """Return the most or least popular interests, or the people with the most or fewest interests."""

    def meaning(found: Found) -> Query:
        places = found.number("number") if found.has("number") else 1
        if places < 1:
            raise NoMeaningError
        return Ranking(find, most, places, majority)

    return meaning


def comparison(find: Subject, *, most: bool = True) -> Meaning:
    """Return which of several has more or fewer links: "Which is more popular, A or B?"."""

    def meaning(found: Found) -> Query:
        linked = found.linked("names", find)
        if not linked.any and not linked.terms.is_plain:
            raise ListError
        matches = linked.any or linked.all
        if len(matches) < 2:
            raise ListError
        return Comparison(find, matches, most)

    return meaning


def comparison_of_two(find: Subject, *, most: bool = True) -> Meaning:
    """Return whether the first has more or fewer links than the second: "Is A more popular than B?"."""

    def meaning(found: Found) -> Query:
        first, second = found.plain("first", find), found.plain("second", find)
        if len(first) != 1 or len(second) != 1:
            raise ListError
        return Comparison(find, (*first, *second), most, first_of_two=True)

    return meaning


def comparison_of_equals(find: Subject) -> Meaning:
    """Return whether all have the same number of links: "Are A and B equally popular?"."""

    def meaning(found: Found) -> Query:
        matches = (*found.plain("first", find), *found.plain("second", find))
        if len(matches) < 2:
            raise ListError
        return Comparison(find, matches, equal=True)

    return meaning


def alike(*, closest: bool) -> Meaning:
    """Return who shares interests with a person."""

    def meaning(found: Found) -> Query:
        people = found.plain("people", PEOPLE)
        if len(people) != 1:
            raise ListError
        return Alike(people[0], closest)

    return meaning


def profile(found: Found) -> Query:
    """Return what is known about one person or interest."""
    as_person, as_interest = found.plain("about", PEOPLE), found.plain("about", INTERESTS)
    if len(as_person) != 1:
        if all(match.name for match in as_person):
            return Question(Kind.INTERESTS, [*as_person])
        if all(match.name for match in as_interest):
            return Question(Kind.FANS, [*as_interest])
        raise NoMeaningError
    return _profile(as_person[0], as_interest[0])


def _profile(as_person: Match, as_interest: Match) -> Profile:
    readings = [Profile(PEOPLE, as_person), Profile(INTERESTS, as_interest)]
    for reading in readings:
        if reading.match.exact:
            return reading
    for reading in readings:
        if reading.match.name or reading.match.candidates:
            return reading
    return readings[0]


linked_with_all_people = linked_with_number(INTERESTS, "=", EVERY)
