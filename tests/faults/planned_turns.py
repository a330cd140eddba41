"""Turns of the planned bot: what each must leave in the store and outside of it, whatever was killed meanwhile.

A turn has *endings*, in the order of its steps: each of its questions, and its answer at last. A run that completes
adds one ending, with the tool calls that its steps made before it. So the endings that a store holds are the first
ones of the plan, each once, and there is one more of them than there are answers to its questions at most.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

QUESTIONS = frozenset(("choose", "tell", "brief", "lasting"))

PROMISED_NONE = (
    "acknowledged and lost",
    "answers lost",
    "refused and stored",
    "answers that nobody sent",
    "doubled messages",
    "doubled answers",
    "answered and closed",
    "endings out of turn",
    "went on without an answer",
    "doubled results",
    "results without an effect",
    "effects after their result",
    "effects repeated without a kill",
)


class Step(NamedTuple):
    """A step of the planned bot."""

    kind: str
    key: str


@dataclass
class Turn:
    """A message of the planned bot, and what callers sent and read of its turn. Answers are by the key of the question.

    `acknowledged` are the endings that a caller has read, `answers` those that were acknowledged, `sent` all that a
    caller has sent, `refused` the keys of questions all answers to which got 409.
    """

    label: str
    steps: Sequence[Step]
    acknowledged: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    sent: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    refused: set[str] = field(default_factory=set)

    @property
    def message(self) -> str:
        """What its caller sends."""
        return f"{self.label}; {' '.join(f'{kind}:{key}' for kind, key in self.steps)}"

    @property
    def open_question(self) -> Step | None:
        """The question that a caller has read last; None if the turn is over."""
        read = self.acknowledged[-1:]
        return next((step for step in self.steps if [self.question(step)] == read), None)

    def question(self, step: Step) -> str:
        """The text of a question."""
        return f"{self.label} {step.key}?"

    def is_ending(self, text: str) -> bool:
        """Whether a text that a caller reads is the next ending. Values of effects are compared later."""
        questions = [self.question(step) for step in self.steps if step.kind in QUESTIONS]
        position = len(self.acknowledged)
        if position < len(questions):
            return text == questions[position]
        return position == len(questions) and text.split(" ", maxsplit=1)[0] == self.label


class Effect(NamedTuple):
    """A line that a step `once` wrote."""

    value: str
    label: str
    key: str
    pid: str


class Row(NamedTuple):
    """A stored event."""

    event_type: str
    data: str


class Kept:
    """What a store holds of turns, by their labels and by the identifiers of questions."""

    def __init__(self, rows: Iterable[Row], effects: Iterable[Effect]) -> None:
        """`rows` are in order within each thread."""
        self.messages: Counter[str] = Counter()
        self.endings: defaultdict[str, list[tuple[str, list[str]]]] = defaultdict(list)
        """Endings with the tools that were called before each."""
        self.questions: dict[str, str] = {}
        """Identifiers of questions, by their texts."""
        self.answers: defaultdict[str, list[str]] = defaultdict(list)
        """Answers that count, by the identifiers of questions."""
        self.closed: set[str] = set()
        self.results: Counter[str] = Counter()
        self.effects: defaultdict[tuple[str, str], list[Effect]] = defaultdict(list)
        for effect in effects:
            self.effects[effect.label, effect.key].append(effect)
        self._called: defaultdict[str, list[str]] = defaultdict(list)
        for row in rows:
            self._read(row)

    def _read(self, row: Row) -> None:
        data = json.loads(row.data)
        match row.event_type:
            case "comm.user_message" if ";" in data["content"]:  # others are answers in text
                self.messages[data["content"].partition(";")[0]] += 1
            case "tool.call":
                self._called[data["arguments"]["label"]].append(data["name"])
            case "question.asked":
                self.questions[data["text"]] = data["question_id"]
                self._end(data["text"])
            case "comm.assistant_message":
                self._end(data["content"])
            case "question.answered" if data["question_id"] not in self.closed:  # later ones do not count
                self.answers[data["question_id"]].append(data["value"])
            case "question.closed":
                self.closed.add(data["question_id"])
            case "once.result":
                self.results[data["value"]] += 1

    def _end(self, text: str) -> None:
        label = text.split(" ", maxsplit=1)[0]
        self.endings[label].append((text, self._called.pop(label, [])))

    def value(self, label: str, key: str) -> str | None:
        """The stored value of an effect."""
        stored = [effect.value for effect in self.effects[label, key] if effect.value in self.results]
        return stored[-1] if stored else None

    def answer(self, text: str) -> str | None:
        """The stored answer to a question."""
        return next(iter(self.answers[self.questions.get(text, "")]), None)


def broken_promises(turns: Sequence[Turn], kept: Kept, killed: Collection[str]) -> list[tuple[str, str]]:
    """Return each promise that was broken, with what shows it. `killed` are the processes that were killed."""
    found: list[tuple[str, str]] = []
    for turn in turns:
        found += [(name, f"{turn.message}: {what}") for name, what in _of_messages(turn, kept)]
        found += [(name, f"{turn.message}: {what}") for name, what in _of_answers(turn, kept)]
        found += [(name, f"{turn.message}: {what}") for name, what in _of_effects(turn, kept, killed)]
    values = {effect.value for effects in kept.effects.values() for effect in effects}
    found += [("results without an effect", value) for value in kept.results if value not in values]
    return found


def _of_messages(turn: Turn, kept: Kept) -> Iterable[tuple[str, str]]:
    endings = kept.endings[turn.label]
    plan = _planned(turn, kept)
    if kept.messages[turn.label] > 1:
        yield "doubled messages", f"{kept.messages[turn.label]} times"
    if turn.acknowledged and not kept.messages[turn.label]:
        yield "acknowledged and lost", "the message"
    if endings != plan[: len(endings)]:
        yield "endings out of turn", f"{endings} in place of {plan}"
    for text in turn.acknowledged:
        if text not in [ending for ending, _ in endings]:
            yield "acknowledged and lost", text
    for text, _ in endings[:-1]:
        if kept.answer(text) is None:
            yield "went on without an answer", text


def _planned(turn: Turn, kept: Kept) -> list[tuple[str, list[str]]]:
    """All endings of a turn, with the tools that are called before each."""
    plan: list[tuple[str, list[str]]] = []
    tools: list[str] = []
    said = [turn.label]
    for step in turn.steps:
        if step.kind == "tool":
            tools.append(step.key)
        elif step.kind == "once":
            said.append(f"{step.key}={kept.value(turn.label, step.key)}")
        else:
            plan.append((turn.question(step), [*tools]))
            said.append(f"{step.key}={kept.answer(turn.question(step))}")
    return [*plan, (" ".join(said), tools)]


def _of_answers(turn: Turn, kept: Kept) -> Iterable[tuple[str, str]]:
    for step in turn.steps:
        if step.kind not in QUESTIONS:
            continue
        key = step.key
        question_id = kept.questions.get(turn.question(step), "")
        answers = kept.answers[question_id]
        if len(answers) > 1:
            yield "doubled answers", f"{key}: {answers}"
        if key in turn.answers and answers != [turn.answers[key]]:
            yield "answers lost", f"{key}: {answers} in place of {turn.answers[key]}"
        if key in turn.refused and answers:
            yield "refused and stored", f"{key}: {answers}"
        if set(answers) - turn.sent[key]:
            yield "answers that nobody sent", f"{key}: {answers}"
        if answers and question_id in kept.closed:
            yield "answered and closed", key


def _of_effects(turn: Turn, kept: Kept, killed: Collection[str]) -> Iterable[tuple[str, str]]:
    """What broke the promise of `ctx.once`.

    An effect is had again only if its process was killed before the effect's result was stored.
    """
    for kind, key in turn.steps:
        if kind != "once":
            continue
        effects = kept.effects[turn.label, key]
        stored = [effect for effect in effects if effect.value in kept.results]
        if len(stored) > 1 or any(kept.results[effect.value] > 1 for effect in stored):
            yield "doubled results", key
        if stored and effects[-1] is not stored[-1]:
            yield "effects after their result", f"{key}: {effects}"
        for effect in effects:
            if effect not in stored and effect.pid not in killed:
                yield "effects repeated without a kill", f"{key}: {effect} of {effects}"
