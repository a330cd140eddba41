"""Questions in everyday words: the answers of `interests_questions.txt`, and what must never happen."""

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from examples.interests.answer import answer_message, examples
from examples.interests.english import ENGLISH
from examples.interests.german import GERMAN
from examples.interests.grammar import Grammar, Language
from examples.interests.graph import Graph
from examples.interests.names import Match, Names
from examples.interests.question import LONGEST, LOOK_BACK, read_message
from examples.interests.sentence import MAX_SEARCHES
from examples.interests.tables import Tables

QUESTIONS = Path(__file__).with_name("interests_questions.txt")


def ask(graph: Graph, *messages: str) -> str:
    return answer_message(read_message(messages, graph.people, graph.interests), graph).full()


def conversations() -> Iterator[tuple[list[str], str]]:
    """Yield the messages and the answer of each paragraph that is not a heading."""
    for paragraph in QUESTIONS.read_text(encoding="utf-8").split("\n\n"):
        lines = paragraph.strip().split("\n")
        if not lines[0].startswith("#"):
            yield [line.removeprefix("> ") for line in lines[:-1]], lines[-1]


@pytest.mark.parametrize(("messages", "answer"), [*conversations()], ids=lambda value: str(value)[:60])
def test_questions_in_everyday_words_have_these_answers(graph: Graph, messages: list[str], answer: str) -> None:
    text = ask(graph, *messages)
    for language in Language:
        text = text.replace(examples(graph, language), "<examples>")
    assert text == answer


def fans(tables: Tables, interest: str) -> set[str]:
    return {tables.people[person] for person, key in tables.links if tables.interests[key] == interest}


def named(graph: Graph, text: str) -> set[str]:
    """The people that a list behind the colon of an answer has."""
    behind = text.rpartition(": ")[2]
    return {person for person in graph.people.all if person in behind}


def test_every_combination_of_two_interests_is_the_one_of_the_files(graph: Graph, tables: Tables) -> None:
    everybody = set(tables.people.values())
    # An interest with an "and" or a comma in its name, one with a question mark, and others.
    chosen = [
        "Quokkas",
        "Mosaic",
        "Salt and Vinegar Crisps",
        "Rivers, Canals and Locks",
        "Who Goes There?",
        "Moss Gardens",
    ]
    for one, other in combinations(chosen, 2):
        first, second = fans(tables, one), fans(tables, other)
        expected = {
            f"Who likes {one} or {other}": first | second,
            f"Who likes {one} but not {other}": first - second,
            f"Who likes {one} or {other} but not both": first ^ second,
            f"Who likes neither {one} nor {other}": everybody - first - second,
            f"Who doesn't like {one}": everybody - first,
            f"Wer mag {one} oder {other}": first | second,
            f"Wer mag {one}, aber nicht {other}": first - second,
            f"Wer mag entweder {one} oder {other}, aber nicht beides": first ^ second,
            f"Wer mag weder {one} noch {other}": everybody - first - second,
            f"Wer mag {one} nicht": everybody - first,
            f"Wer mag {one} und {other}": first & second,
        }
        for question, people in expected.items():
            assert named(graph, ask(graph, question)) == people, question


def test_yes_and_no_are_those_of_the_files(graph: Graph, tables: Tables) -> None:
    for person in tables.people.values():
        for interest in ("Quokkas", "Slide Rules", "Competitive Napping", "Who Goes There?"):
            is_fan = person in fans(tables, interest)
            assert ask(graph, f"Does {person} like {interest}?").startswith("Yes: " if is_fan else "No: ")
            assert ask(graph, f"Mag {person} {interest}?").startswith("Ja: " if is_fan else "Nein: ")


@pytest.mark.parametrize("nobody", ["nobody", "no one"])
def test_nobody_is_not_anybody(graph: Graph, nobody: str) -> None:
    assert ask(graph, f"Does {nobody} like Quokkas?").startswith("No: 4 of 12 people")
    assert ask(graph, f"Does {nobody} like Competitive Napping?").startswith("Yes: nobody")
    assert ask(graph, f"What does {nobody} like?") == "Interests that nobody likes: Competitive Napping."
    assert ask(graph, "Mag niemand Quokkas?").startswith("Nein: ")


def test_else_leaves_out_the_person_who_was_asked_about(graph: Graph) -> None:
    for first, second in [
        ("Does Geneva Durben like Quokkas?", "Who else likes Quokkas?"),
        ("Mag Geneva Durben Quokkas?", "Wer mag sonst noch Quokkas?"),
    ]:
        assert named(graph, ask(graph, first, second)) == {"Iñaki Etxarte", "Siobhán O'Dwyer", "Zoë Vandermeer"}


def test_an_else_that_refers_to_nobody_is_not_ignored_silently(graph: Graph) -> None:
    assert ask(graph, "Who else likes Quokkas?").startswith("I read that as: people interested in Quokkas.")
    assert ask(graph, "Who likes Quokkas?", "Who else likes Mosaic?").startswith("I cannot tell whom")
    assert ask(graph, "Who likes Quokkas?", "Who also likes Mosaic?").startswith("I cannot tell whom")


def test_not_both_and_ausser_count(graph: Graph) -> None:
    assert named(graph, ask(graph, "Who likes Quokkas or Mosaic but not both?")) == {
        "Iñaki Etxarte",
        "Rosalind Sandgate",
        "Siobhán O'Dwyer",
    }
    for question in ("Wer mag Quokkas außer Geneva Durben?", "Wer außer Geneva Durben mag Quokkas?"):
        assert named(graph, ask(graph, question)) == {"Iñaki Etxarte", "Siobhán O'Dwyer", "Zoë Vandermeer"}
    assert "Quokkas" not in ask(graph, "Was mag Geneva Durben außer Quokkas?").partition(": ")[2]


def test_both_but_not_is_about_both_together(graph: Graph) -> None:
    for question in (
        "What do both Geneva Durben and Zoë Vandermeer like but not Iñaki Etxarte?",
        "What do Geneva Durben and Zoë Vandermeer both like but not Iñaki Etxarte?",
        "Was mögen Geneva Durben und Zoë Vandermeer beide, aber nicht Iñaki Etxarte?",
    ):
        assert ask(graph, question).endswith(": Mosaic.")


@pytest.mark.parametrize(
    "question",
    [
        "What is Geneva Durben's favourite interest?",
        "What is Geneva Durben's favorite interest?",
        "Does Geneva Durben prefer Quokkas?",
        "Who prefers Quokkas to Mosaic?",
        "What does Geneva Durben like best?",
        "Was ist das Lieblingsinteresse von Geneva Durben?",
        "Was mag Geneva Durben am liebsten?",
    ],
)
def test_what_somebody_prefers_is_not_what_somebody_likes(graph: Graph, question: str) -> None:
    answer = ask(graph, question)
    assert answer.startswith(("I cannot answer that: the data says who", "Das kann ich nicht beantworten: Die Daten"))


@pytest.mark.parametrize("question", ["Do they like Mosaic?", "Does she like Mosaic?", "What do they have in common?"])
def test_a_pronoun_is_not_read_as_everybody(graph: Graph, question: str) -> None:
    assert ask(graph, "Who likes Quokkas?", question).startswith("I cannot tell whom or what a word such as “they”")


@pytest.mark.parametrize(
    "question",
    [
        "Wie ist das Wetter?",
        "Mögen sie Mosaic?",
        "Wer hasst Quokkas?",
        "Wer ist am beliebtesten?",
        "Wer mag Einhörner?",
        "Wer mag Quokkas und Mosaic oder Yodelling?",
        "Wer mag Quokkas? " + "Und wer mag das nicht? " * 30,
    ],
)
def test_a_german_question_is_refused_in_german(graph: Graph, question: str) -> None:
    answer = ask(graph, question)
    assert not answer.startswith("I ")
    assert "the data" not in answer
    assert "Interesse" in answer


def test_the_language_of_a_long_message_is_that_of_its_beginning(graph: Graph) -> None:
    german, english = (
        "Wer mag Quokkas und was mag Geneva? " * 10,
        "who likes what and how many people are there " * 9000,
    )
    assert len(german) > LONGEST
    assert read_message([german + english], graph.people, graph.interests).language is Language.GERMAN


def test_a_message_without_words_is_answered_in_the_language_before(graph: Graph) -> None:
    assert ask(graph, "Was mag Ren Hayakawa?", "Mosaic?").startswith("Personen mit Interesse an Mosaic")
    assert ask(graph, "What does Ren Hayakawa like?", "Mosaic?").endswith("are interested in Mosaic.")


FILLERS = ["never", "only", "hardly", "formerly", "not", "almost", "maybe", "nie", "kaum", "angeblich", "nicht nur"]


@pytest.mark.parametrize("word", FILLERS)
@pytest.mark.parametrize(
    "question",
    [
        "Who likes Quokkas",
        "Does Geneva Durben like Mosaic",
        "How many people like Quokkas",
        "What is the most popular interest",
        "Wer mag Quokkas",
        "Mag Geneva Durben Mosaic",
    ],
)
def test_a_word_more_never_gets_the_answer_of_the_question_without_it(graph: Graph, question: str, word: str) -> None:
    plain = ask(graph, question)
    words = question.split()
    for place in range(len(words) + 1):
        changed = " ".join([*words[:place], word, *words[place:]])
        assert ask(graph, changed) != plain, changed


def test_a_word_that_a_name_with_a_slip_would_swallow_is_not_swallowed(graph: Graph) -> None:
    for name in ("Night Trains", "Salt and Vinegar Crisps", "Rivers, Canals and Locks"):
        people = named(graph, f": {ask(graph, f'Who likes {name}?')}")
        for word in ("no", "not", "non"):
            for slip in (name, name[:-1]):
                assert named(graph, f": {ask(graph, f'Who likes {word} {slip}?')}") != people
    # Two letters make "pub" of "but", and the number of words is the same.
    assert "Pub Quizzes" not in ask(graph, "Who likes but quizzes?")


README = Path(__file__).parents[2] / "examples/interests/README.md"


def test_every_question_of_the_page_is_answered(graph: Graph) -> None:
    kinds = README.read_text(encoding="utf-8").partition("| kind |")[2].partition("\n\n")[0]
    questions = re.findall('"([^"]+)"', kinds)
    assert len(questions) >= 30
    for question in questions:
        message = read_message([question], graph.people, graph.interests)
        assert message.query or message.talk, question
        assert all(match.exact for _, match in message.query.mentions()) if message.query else True, question


def test_unknown_words_are_named(graph: Graph) -> None:
    assert ask(graph, "Who likes Quokkas today?").endswith(" I do not know “today”.")
    assert ask(graph, "Wie ist das Wetter?").endswith(" „Wetter“ kenne ich nicht.")


def test_an_interest_that_is_a_known_word_can_be_asked_about() -> None:
    graph = Graph(Tables({"1": "Ann", "2": "Will Best"}, {"1": "Love", "2": "People"}, [("1", "1"), ("2", "2")]))
    assert ask(graph, "Who likes Love?") == "Ann is interested in Love."
    assert ask(graph, "What does Ann love?") == "Ann is interested in Love."
    assert ask(graph, "Does Will Best like People?").startswith("Yes: ")
    assert ask(graph, "How many people like People?").startswith("I did not understand that.")


HOSTILE = [
    "Who likes " + "both " * 55,
    "Who likes " + "Quokkas and " * 23,
    "Who likes " + "Quokkas, " * 30,
    "who " * 74,
    "<0> " * 70,
    "<1>" * 99,
    "'s " * 90,
    "," * LONGEST,
    "n't" * 99,
    "a" * LONGEST,
    "Who likes " + " ".join(f"Quokka{letter}" for letter in "abcdefghij") + " and" * 40,
    "and " * 74,
    "Mag " + "Geneva Durben " * 20,
    "hi, " * 74,
    "bye " * 74 + "x",
    "hello, " * 42 + "x",
    "please tell me " * 19 + "x",
    "😀" * LONGEST,
    "What do " + "Geneva and " * 25 + "like?",
]


@pytest.mark.parametrize("message", HOSTILE, ids=lambda message: message[:20])
def test_hostile_messages_are_refused_or_answered_in_a_sentence(graph: Graph, message: str) -> None:
    assert len(message) <= LONGEST
    assert ask(graph, message)


class CountingNames(Names):
    """Counts the searches for similar names, which are what costs."""

    searches = 0

    def find(self, written: str) -> Match:
        if self.known(written) is None:
            self.searches += 1
        return super().find(written)


def test_the_searches_for_similar_names_have_a_limit_however_long_the_conversation(tables: Tables) -> None:
    people, interests = CountingNames(tables.people.values()), CountingNames(tables.interests.values())
    word = "abcdefghij"
    nonsense = [" ".join(f"who {word[n:]}{word[:n]}{place}" for n in range(10)) for place in range(LOOK_BACK)]
    read_message([*nonsense, "and Quokka?"], people, interests)
    follow_ups = 2 * LOOK_BACK
    assert 0 < people.searches + interests.searches <= 2 * MAX_SEARCHES + follow_ups


def test_a_message_that_is_too_long_is_not_read(graph: Graph) -> None:
    answer = ask(graph, "Who likes Quokkas?" + "?" * LONGEST)
    assert answer.startswith("I did not read that, because it is longer")


@pytest.mark.parametrize("grammar", [ENGLISH, GERMAN], ids=lambda grammar: grammar.language.name)
def test_no_letter_of_a_phrase_is_optional(grammar: Grammar) -> None:
    """The vocabulary is read from the phrases: "likes?" would leave out "like"."""
    phrases = [phrase for _, phrases in grammar.phrases for phrase in phrases]
    for pattern in [*phrases, *(pattern for pattern, _ in grammar.rewrites), *grammar.talk.values(), grammar.lead_in]:
        letters = re.sub(r"\\\w\+?", "", pattern).replace("(?", "(")
        assert not re.search(r"[^\W\d_][?*+{]", letters), pattern


@pytest.mark.parametrize("grammar", [ENGLISH, GERMAN], ids=lambda grammar: grammar.language.name)
def test_no_phrase_of_a_grammar_fits_any_word(grammar: Grammar) -> None:
    for _, phrases in grammar.phrases:
        for phrase in phrases:
            assert not {".+", ".*", r"\w", r"\S"} & {phrase[place : place + 2] for place in range(len(phrase))}, phrase
