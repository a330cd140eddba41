"""The sentences of German answers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from .grammar import Reason
from .query import EVERY, Number, Search, Subject
from .wording import Wording, in_brackets, names_of, ranked_names, with_full_stop

PEOPLE, INTERESTS = Subject.PEOPLE, Subject.INTERESTS


class German(Wording):
    """German sentences."""

    hello = "Hallo!"
    thanks = "Gern geschehen."
    goodbye = "Auf Wiedersehen!"
    no_data = "Es gibt noch niemanden, nach dem man fragen kann: Die Daten sind leer."
    not_understood = "Das habe ich nicht verstanden."
    unknown_words = "{} kenne ich nicht."
    quoted = "„{}“"
    reasons: ClassVar[Mapping[Reason, str]] = {
        Reason.REFERENCE: (
            "Ich weiß nicht, wen oder was ein Wort wie „sie“ oder „sonst“ hier meint. Bitte schreiben Sie die Namen."
        ),
        Reason.DEGREE: (
            "Das kann ich nicht beantworten: Die Daten sagen, wer sich wofür interessiert, aber nicht, wie "
            "sehr oder was jemand lieber mag."
        ),
        Reason.SEVERAL: "Ich kann nur eine Frage auf einmal beantworten.",
        Reason.DISLIKE: (
            "Das kann ich nicht beantworten: Die Daten sagen, wofür sich jemand interessiert, und nicht, was "
            "jemand ablehnt."
        ),
        Reason.POPULAR_PERSON: "Das kann ich nicht beantworten: Die Daten sagen nicht, wie beliebt eine Person ist. "
        "Sie sagen, wer die meisten Interessen hat und welche Interessen am beliebtesten sind.",
        Reason.MIXED: "Das kann ich nicht beantworten, weil man es auf mehrere Arten lesen kann. "
        "Bitte nur „und“ oder nur „oder“ verwenden, sonst „sowohl … als auch“, „weder … noch“ oder „aber nicht“.",
        Reason.OTHER_FACTS: (
            "Das kann ich nicht beantworten: Die Daten enthalten nur Namen von Personen und von ihren Interessen."
        ),
        Reason.FOLLOW_UP: (
            "Ich weiß nicht, welchen Namen der vorigen Frage dieser ersetzt. Bitte stellen Sie die ganze Frage."
        ),
        Reason.TOO_LONG: "Das habe ich nicht gelesen, weil es länger ist als eine Frage nach Personen und Interessen.",
    }
    nobody = "niemand"
    nothing = "keine"
    yes = "Ja"
    no = "Nein"
    one_person = "Das ist eine Person, {}; zum Vergleich braucht es mindestens zwei."
    and_word = "und"
    or_word = "oder"
    near = "„{}“ gibt es nicht; am nächsten kommt {}."
    part = "Ich lese „{}“ als {}."
    all_known = "Mehr enthalten die Daten über {} nicht."
    unknown: ClassVar[Mapping[Subject, str]] = {
        INTERESTS: (
            "„{}“ wurde nicht gefunden: Es gibt kein Interesse dieses Namens und keines, das ähnlich geschrieben wird."
        ),
        PEOPLE: (
            "„{}“ wurde nicht gefunden: Es gibt niemanden dieses Namens und niemanden, der ähnlich geschrieben wird."
        ),
    }
    other_kind: ClassVar[Mapping[Subject, str]] = {
        INTERESTS: "„{}“ ist unter den Interessen nicht zu finden; {} ist eine Person.",
        PEOPLE: "„{}“ ist unter den Personen nicht zu finden; {} ist ein Interesse.",
    }
    meant = "„{}“ gibt es nicht; ist {} gemeint?"
    others = "eines von {} anderen"
    read_as = "Ich lese das als: {}."

    def examples(self, people: Sequence[str], interests: Sequence[str]) -> str:
        """Say what can be asked, with names from the data."""
        questions = [f"„Was mag {people[0]}?“", f"„Wer mag {interests[0]}?“"]
        if len(people) > 1:
            questions.append(f"„Was haben {people[0]} und {people[1]} gemeinsam?“")
        return f"Fragen Sie mich nach Personen und ihren Interessen, zum Beispiel: {', '.join(questions)}"

    def topics(self) -> str:
        """Say which kinds of questions can be asked."""
        return (
            "Ich beantworte auch „Wie viele …“, Ja oder Nein, „oder“, „aber nicht“, „weder … noch“, wer "
            "die meisten Interessen "
            "hat, welches Interesse am beliebtesten ist, und „Erzähl mir etwas über …“, auf Deutsch und Englisch."
        )

    def person(self, person: str, interests: Sequence[str]) -> str:
        """Say what a person is interested in."""
        if not interests:
            return f"Für {person} sind keine Interessen eingetragen."
        return with_full_stop(f"Interessen von {person}: {', '.join(interests)}")

    def fans(self, interests: Sequence[str], people: Sequence[str]) -> str:
        """Say who is interested in all of these."""
        return with_full_stop(
            f"Personen mit Interesse {self._all_of('an', interests)}: {', '.join(people) or self.nobody}"
        )

    def shared(self, people: Sequence[str], interests: Sequence[str]) -> str:
        """Say what people have in common."""
        return with_full_stop(
            f"Gemeinsame Interessen von {self.listed(people)}: {', '.join(interests) or self.nothing}"
        )

    def _all_of(self, word: str, names: Sequence[str]) -> str:
        if len(names) == 1:
            return f"{word} {names[0]}"
        return "zugleich " + self.listed([f"{word} {name}" for name in names])

    def _link(self, search: Search) -> str:
        word = "an" if search.find is PEOPLE else "von"
        parts = []
        if search.all:
            parts.append(self._all_of(word, names_of(search.all)))
        if search.any:
            some = [f"{word} {name}" for name in names_of(search.any)]
            parts.append(self.listed(some, "oder"))
        if search.one:
            parts.append(f"{word} genau einem von {self.listed(names_of(search.one))}")
        text = ", und ".join(parts)
        if search.none:
            none = [f"{word} {name}" for name in names_of(search.none)]
            denied = f"weder {self.listed(none, 'noch')}" if len(none) > 1 else f"nicht {none[0]}"
            text = f"{text}, aber {denied}" if text else denied
        return text

    def described(self, search: Search) -> str:
        """Return what a search finds."""
        noun = "Personen" if search.find is PEOPLE else "Interessen"
        link = self._link(search)
        if link and search.find is PEOPLE:
            link = f"mit Interesse {link}"
            if search.none and not (search.all or search.any or search.one):
                link = self._without(search)
        number = self._number(search.find, search.number) if search.number else ""
        if link and number:
            link, number = f"{link},", f"insgesamt {number}" if search.find is PEOPLE else number
        excluded = f", außer {self.listed(names_of(search.excluded))}" if search.excluded else ""
        return " ".join(filter(None, [noun, link, number])) + excluded

    def _without(self, search: Search) -> str:
        return f"ohne Interesse an {self.listed(names_of(search.none), 'und an')}"

    def _number(self, find: Subject, number: Number) -> str:
        if number.amount == EVERY:
            return "aller Personen" if find is INTERESTS else "mit allen Interessen"
        if number == Number("=", 0):
            return "von niemandem" if find is INTERESTS else "ohne eingetragene Interessen"
        words = {"=": "genau", ">": "mehr als", ">=": "mindestens", "<": "weniger als", "<=": "höchstens"}
        amount = f"{words[number.comparison]} {number.amount}"
        if number.amount == 1:
            return f"mit {amount} Interesse" if find is PEOPLE else f"von {amount} Person"
        return f"mit {amount} Interessen" if find is PEOPLE else f"von {amount} Personen"

    def found(self, search: Search, names: Sequence[str]) -> str:
        """Say what a search found."""
        nothing = self.nobody if search.find is PEOPLE else self.nothing
        return with_full_stop(f"{self.described(search)}: {', '.join(names) or nothing}")

    def counted(self, search: Search, names: Sequence[str]) -> str:
        """Say how many a search found."""
        return with_full_stop(f"{self.described(search)}: {len(names)}{in_brackets(names)}")

    def counted_of(self, person: str, number: int) -> str:
        """Say how many interests a person has."""
        return f"Interessen von {person}: {number}."

    def checked_one(self, search: Search, person: str, is_true: bool) -> str:
        """Say whether a search finds a person."""
        if search.number:
            has = is_true == (search.number == Number(">=", 1))
            return f"Für {person} sind {'' if has else 'keine '}Interessen eingetragen."
        link = self._link(search)
        return with_full_stop(f"Bei {person} ist {'' if is_true else 'kein '}Interesse {link} eingetragen")

    def checked(self, search: Search, people: Sequence[str], found: Sequence[str]) -> str:
        """Say which of several people a search finds."""
        return with_full_stop(
            f"Von {self.listed(people)} gehören zu „{self.described(search)}“: "
            f"{self.listed(found) if found else self.nobody}"
        )

    def checked_everybody(self, search: Search, found: Sequence[str], number: int) -> str:
        """Say how many of all people a search finds."""
        return with_full_stop(f"{self.described(search)}: {len(found)} von {number}{in_brackets(found)}")

    def choice(self, person: str, offered: Sequence[str], liked: Sequence[str]) -> str:
        """Say which of several interests a person has."""
        return with_full_stop(
            f"Von {self.listed(offered)} ist bei {person} eingetragen: {self.listed(liked) if liked else self.nothing}"
        )

    def ranked(self, find: Subject, most: bool, places: int, ranks: Sequence[tuple[str, int]]) -> str:
        """Say who or what has the most or fewest links."""
        if find is PEOPLE:
            title = "Die meisten Interessen" if most else "Die wenigsten Interessen"
        else:
            title = (
                f"Am {'' if most else 'wenigsten '}{'beliebtesten' if most else 'beliebt'}, nach der Zahl der Personen"
            )
        tie = f" Der letzte von {places} Plätzen ist geteilt." if len(ranks) > places > 1 else ""
        return f"{title}: {ranked_names(ranks) or self.nothing}.{tie}"

    def majority(self, names: Sequence[str], number: int) -> str:
        """Say what more than half of all people like."""
        return with_full_stop(
            f"Interessen von mehr als der Hälfte der {number} Personen: {', '.join(names) or 'keine'}"
        )

    def numbers(self, find: Subject, ranks: Sequence[tuple[str, int]]) -> str:
        """Say how many links each of several has."""
        title = "Zahl der Interessen" if find is PEOPLE else "Zahl der interessierten Personen"
        return f"{title}: {ranked_names(ranks)}."

    def compared(self, find: Subject, most: bool, winners: Sequence[str]) -> str:
        """Say which of several has the most or fewest links."""
        if len(winners) > 1:
            end = "haben gleich viele Interessen" if find is PEOPLE else "sind gleich beliebt"
            return f"{self.listed(winners)} {end}."
        if find is PEOPLE:
            return f"{winners[0]} hat {'mehr' if most else 'weniger'} Interessen."
        return f"{winners[0]} ist {'beliebter' if most else 'weniger beliebt'}."

    def alike(self, person: str, shared: Sequence[tuple[str, int]], closest: bool) -> str:
        """Say who shares how many interests with a person."""
        title = "Die meisten gemeinsamen Interessen" if closest else "Gemeinsame Interessen"
        return f"{title} mit {person}: {ranked_names(shared) or self.nobody}."
