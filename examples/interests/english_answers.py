"""The sentences of English answers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from .grammar import Reason
from .query import EVERY, Number, Search, Subject
from .wording import Wording, amount_of, capital, in_brackets, names_of, ranked_names, with_full_stop

PEOPLE, INTERESTS = Subject.PEOPLE, Subject.INTERESTS


class English(Wording):
    """English sentences."""

    hello = "Hello!"
    thanks = "You are welcome."
    goodbye = "Goodbye!"
    no_data = "There is nobody to ask about yet: the data is empty."
    not_understood = "I did not understand that."
    unknown_words = "I do not know {}."
    quoted = "“{}”"
    reasons: ClassVar[Mapping[Reason, str]] = {
        Reason.REFERENCE: (
            "I cannot tell whom or what a word such as “they” or “else” means here. Please write the names."
        ),
        Reason.DEGREE: (
            "I cannot answer that: the data says who is interested in what, but not how much, nor what anybody prefers."
        ),
        Reason.SEVERAL: "I can answer only one question at a time.",
        Reason.DISLIKE: "I cannot answer that: the data says what people are interested in, and not what they dislike.",
        Reason.POPULAR_PERSON: "I cannot answer that: the data does not say how popular a person is. "
        "It says who has the most interests, and which interests are the most popular.",
        Reason.MIXED: "I cannot answer that, because it can be read in more than one way. "
        "Please use only “and” or only “or”, and “both … and”, “neither … nor” or “but not” for the rest.",
        Reason.OTHER_FACTS: "I cannot answer that: the data has only names of people and of their interests.",
        Reason.FOLLOW_UP: (
            "I cannot tell which name in the question before this one replaces. Please ask the whole question."
        ),
        Reason.TOO_LONG: "I did not read that, because it is longer than a question about people and interests.",
    }
    nobody = "nobody"
    nothing = "none"
    yes = "Yes"
    no = "No"
    one_person = "That is one person, {}; name at least two to compare."
    and_word = "and"
    or_word = "or"
    near = "No “{}”; the nearest is {}."
    part = "I read “{}” as {}."
    all_known = "That is all that the data has about {}."
    unknown: ClassVar[Mapping[Subject, str]] = {
        INTERESTS: "“{}” was not found: there is no interest of that name, nor one spelt like it.",
        PEOPLE: "“{}” was not found: there is nobody of that name, nor one spelt like it.",
    }
    other_kind: ClassVar[Mapping[Subject, str]] = {
        INTERESTS: "“{}” was not found among the interests; {} is a person.",
        PEOPLE: "“{}” was not found among the people; {} is an interest.",
    }
    meant = "No “{}”; did you mean {}?"
    others = "one of {} others"
    read_as = "I read that as: {}."

    def examples(self, people: Sequence[str], interests: Sequence[str]) -> str:
        """Say what can be asked, with names from the data."""
        questions = [f"“What are {people[0]}'s interests?”", f"“Who likes {interests[0]}?”"]
        if len(people) > 1:
            questions.append(f"“What do {people[0]} and {people[1]} have in common?”")
        return f"Ask me about people and their interests, for example: {', '.join(questions)}"

    def topics(self) -> str:
        """Say which kinds of questions can be asked."""
        return (
            "I also answer how many, yes or no, “or”, “but not”, “neither … nor”, who has the most "
            "interests, which interest "
            "is the most popular, and “Tell me about …”, in English and German."
        )

    def person(self, person: str, interests: Sequence[str]) -> str:
        """Say what a person is interested in."""
        if not interests:
            return f"{person} has no interests on record."
        return with_full_stop(f"{person} is interested in {', '.join(interests)}")

    def fans(self, interests: Sequence[str], people: Sequence[str]) -> str:
        """Say who is interested in all of these."""
        verb = "are" if len(people) > 1 else "is"
        return with_full_stop(f"{', '.join(people) or 'Nobody'} {verb} interested in {self._all_of(interests)}")

    def shared(self, people: Sequence[str], interests: Sequence[str]) -> str:
        """Say what people have in common."""
        return f"{self.listed(people)} have {', '.join(interests) or 'no interests'} in common."

    def _all_of(self, names: Sequence[str]) -> str:
        """Return "A", "both A and B" or "all of A, B and C", which nobody can read as "A or B"."""
        return ("", "both ", "all of ")[min(len(names), 3) - 1] + self.listed(names)

    def _link(self, search: Search) -> str:
        """Return how a search is linked: "interested in both A and B, but not in C"."""
        word = "in" if search.find is PEOPLE else "of"
        parts = []
        if search.all:
            parts.append(f"{word} {self._all_of(names_of(search.all))}")
        if search.any:
            some = names_of(search.any)
            parts.append(f"{word} {some[0]}" if len(some) == 1 else f"{word} at least one of {self.listed(some)}")
        if search.one:
            parts.append(f"{word} exactly one of {self.listed(names_of(search.one))}")
        text = ", and ".join(parts)
        if search.none:
            none = names_of(search.none)
            denied = f"{word} neither {self.listed(none, 'nor')}" if len(none) > 1 else f"not {word} {none[0]}"
            if not text and len(none) == 1:
                own = "with no recorded interest in" if search.find is PEOPLE else "not recorded for"
                return f"{own} {none[0]}"
            text = f"{text}, but {denied}" if text else denied
        return f"interested {text}" if text and search.find is PEOPLE else text

    def described(self, search: Search) -> str:
        """Return what a search finds."""
        noun = "people" if search.find is PEOPLE else "interests"
        link = self._link(search)
        number = self._number(search.find, search.number) if search.number else ""
        if link and number:
            link, number = f"{link},", f"{number} in total" if search.find is PEOPLE else number
        return " ".join(filter(None, [noun, link, number])) + self._excluded(search)

    def _excluded(self, search: Search) -> str:
        return f", other than {self.listed(names_of(search.excluded))}" if search.excluded else ""

    def _number(self, find: Subject, number: Number) -> str:
        singular, plural = ("interest", "interests") if find is PEOPLE else ("person", "people")
        of = "with {} {}" if find is PEOPLE else f"that {{}} {{}} {'likes' if number.amount == 1 else 'like'}"
        if number.amount == EVERY:
            return "that all people like" if find is INTERESTS else "with all interests"
        if number == Number("=", 0):
            return "that nobody likes" if find is INTERESTS else "without interests on record"
        if number == Number(">=", 1):
            return "that somebody likes" if find is INTERESTS else "with at least one interest"
        words = {"=": "exactly", ">": "more than", ">=": "at least", "<": "fewer than", "<=": "at most"}
        amount = f"{words[number.comparison]} {number.amount}"
        return of.format(amount, singular if number.amount == 1 else plural)

    def found(self, search: Search, names: Sequence[str]) -> str:
        """Say what a search found."""
        nothing = self.nobody if search.find is PEOPLE else self.nothing
        return with_full_stop(f"{capital(self.described(search))}: {', '.join(names) or nothing}")

    def counted(self, search: Search, names: Sequence[str]) -> str:
        """Say how many a search found."""
        return with_full_stop(f"{capital(self.described(search))}: {len(names)}{in_brackets(names)}")

    def counted_of(self, person: str, number: int) -> str:
        """Say how many interests a person has."""
        return f"{person} has {amount_of(number, 'interest', 'interests')}."

    def _predicate(self, search: Search, number: int) -> str:
        """Return what is said of one or several people: "is interested in A", "have no recorded interest in A"."""
        link = self._number(PEOPLE, search.number) if search.number else self._link(search)
        if link.startswith("with "):
            return f"{'has' if number == 1 else 'have'} {link.removeprefix('with ')}"
        if link.startswith("without "):
            return f"{'has' if number == 1 else 'have'} no {link.removeprefix('without ')}"
        return f"{'is' if number == 1 else 'are'} {link}"

    def checked_one(self, search: Search, person: str, is_true: bool) -> str:
        """Say whether a search finds a person."""
        if search.number:
            has_some = is_true == (search.number == Number(">=", 1))
            return f"{person} has {'' if has_some else 'no '}interests on record."
        if is_true:
            return with_full_stop(f"{person} {self._predicate(search, 1)}")
        return with_full_stop(f"{person} is not on record as {self._link(search)}")

    def checked(self, search: Search, people: Sequence[str], found: Sequence[str]) -> str:
        """Say which of several people a search finds."""
        if not found:
            return with_full_stop(f"none of {self.listed(people)} {self._predicate(search, 1)}")
        predicate = self._predicate(search, len(found))
        if len(found) == len(people):
            return with_full_stop(f"{self.listed(found)} {predicate}")
        return with_full_stop(f"of {self.listed(people)}, only {self.listed(found)} {predicate}")

    def checked_everybody(self, search: Search, found: Sequence[str], number: int) -> str:
        """Say how many of all people a search finds."""
        if not found:
            return with_full_stop(f"nobody {self._predicate(search, 1)}{self._excluded(search)}")
        who = f"{len(found)} of {number} people {self._predicate(search, len(found))}{self._excluded(search)}"
        return with_full_stop(f"{who}: {', '.join(found)}")

    def choice(self, person: str, offered: Sequence[str], liked: Sequence[str]) -> str:
        """Say which of several interests a person has."""
        if not liked:
            return with_full_stop(f"{person} is not on record as interested in {self.listed(offered, 'or')}")
        if len(liked) == len(offered):
            return with_full_stop(f"{person} is interested in {self._all_of(liked)}")
        return with_full_stop(f"of {self.listed(offered)}, {person} is interested only in {self.listed(liked)}")

    def ranked(self, find: Subject, most: bool, places: int, ranks: Sequence[tuple[str, int]]) -> str:
        """Say who or what has the most or fewest links."""
        if find is PEOPLE:
            title = "Most interests" if most else "Fewest interests"
        else:
            title = (
                "Most popular, by the number of people interested"
                if most
                else "Least popular, by the number of people interested"
            )
        return f"{title}: {ranked_names(ranks) or self.nothing}.{self._tie(places, ranks)}"

    def _tie(self, places: int, ranks: Sequence[tuple[str, int]]) -> str:
        return f" The last of {places} places is shared." if len(ranks) > places > 1 else ""

    def majority(self, names: Sequence[str], number: int) -> str:
        """Say what more than half of all people like."""
        return with_full_stop(f"Interests of more than half of the {number} people: {', '.join(names) or 'none'}")

    def numbers(self, find: Subject, ranks: Sequence[tuple[str, int]]) -> str:
        """Say how many links each of several has."""
        title = "Interests of each" if find is PEOPLE else "People interested in each"
        return f"{title}: {ranked_names(ranks)}."

    def compared(self, find: Subject, most: bool, winners: Sequence[str]) -> str:
        """Say which of several has the most or fewest links."""
        if find is PEOPLE:
            end = "more interests" if most else "fewer interests"
            if len(winners) > 1:
                return f"{self.listed(winners)} have equally many interests."
            return f"{winners[0]} has {end}."
        if len(winners) > 1:
            return f"{self.listed(winners)} are equally popular."
        return f"{winners[0]} is {'more' if most else 'less'} popular."

    def alike(self, person: str, shared: Sequence[tuple[str, int]], closest: bool) -> str:
        """Say who shares how many interests with a person."""
        title = "Most interests in common" if closest else "Interests in common"
        return f"{title} with {person}: {ranked_names(shared) or self.nobody}."
