"""People who talk with the planned bot: they answer its questions in every way that there is, or do something else."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

import httpx

from tests.faults.planned_turns import Step, Turn
from tests.faults.protocols import CHAT, Protocol, Said, protocols

PAUSE = 0.05
"""Seconds that a person waits before it sends again what got no answer or was refused."""
THINKS = 0.4
"""Seconds that a person thinks at most."""
AFTER_EXPIRY = 0.05
MOST_TURNS = 3
REFUSED = {429, 503}
"""Statuses by which the server refuses a message: it promises nothing about it."""


class Ports:
    """The ports of the servers that are there now.

    `generation` counts what was killed, and `outages` the kills of what the servers store in.
    """

    def __init__(self) -> None:
        self.of_servers: list[int] = []
        self.generation = 0
        self.outages = 0

    def choose(self, random: Random) -> int:
        """The position of a server."""
        return random.randrange(len(self.of_servers))


@dataclass
class Sent:
    """What was sent, where it was answered, and how."""

    said: Said
    server: int
    protocol: Protocol


@dataclass
class Asked:
    """What brought a question, and how often `Ports` had been killed before."""

    by: Sent
    generation: int
    outages: int


@dataclass
class Seen:
    """What all people saw and did."""

    counts: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)


class Person:
    """Somebody with one thread, which each of its messages continues. `contact` is its own."""

    def __init__(self, contact: str, random: Random, client: httpx.AsyncClient, ports: Ports, seen: Seen) -> None:
        self.contact = contact
        self.turns: list[Turn] = []
        self._random = random
        self._client = client
        self._ports = ports
        self._seen = seen
        known = protocols()
        self._home = random.choice(known)
        """The protocol of the first message: a thread that a protocol names is continued only by it, and by those that
        continue the newest thread."""
        self._spoken = [one for one in known if one is self._home or not one.names_thread]
        self._by_id = [one for one in self._spoken if one.answers_by_id]
        self._keys = 0
        self._takes_text = True
        """Whether a message answers the question: not if the thread may have two open ones."""
        self._asked: dict[str, Asked] = {}
        """How the open question of a turn came, by the label of the turn."""

    async def live(self) -> None:
        """Have some turns, and see at the end that the thread goes on."""
        turn = self._new_turn()
        await self._begin(turn, self._home)
        for _ in range(self._random.randint(0, MOST_TURNS - 1)):
            await self._act_on_questions(turn)
            turn = self._new_turn()
            await self._begin(turn, self._random.choice(self._by_id))
        await self._act_on_questions(turn)
        last = Turn(f"{self.contact}-last", ())
        self.turns.append(last)
        await self._begin(last, CHAT)

    async def _act_on_questions(self, turn: Turn) -> None:
        """Do something with each question of a turn, and of those that follow on it, until none is open."""
        acts = {
            self._answer: 6,
            self._answer_twice: 2,
            self._repeat: 1,
            self._supersede: 2,
            self._race: 1,
            self._answer_without_key: 1,
        }
        goes_on: Turn | None = turn
        while goes_on is not None and (question := goes_on.open_question) is not None:
            await asyncio.sleep(self._random.uniform(0, THINKS))
            act = self._random.choices([*acts], [*acts.values()])[0]
            goes_on = await (self._answer_in_time_or_not if question.kind == "brief" else act)(goes_on, question)

    # Each of the following does something with the open question of a turn. It returns the turn that goes on, or None.

    async def _answer(self, turn: Turn, question: Step) -> Turn | None:
        """Answer by any protocol, at any server."""
        protocol = self._random.choice(self._spoken if self._takes_text else self._by_id)
        value = self._value(turn, question)
        if protocol.answers_by_id:
            sent = await self._insist(protocol, None, {await self._question_id(turn, question): value})
        else:
            sent = await self._insist(protocol, value, None)
            if sent.said == Said(200, value) and self._ports.outages != self._asked[turn.label].outages:
                # If the store is away when a message comes, the server does not compare it with the open question.
                self._seen.counts["answers taken for messages in an outage"] += 1
                self._takes_text = False
                return None
        return turn if self._read_answer(turn, sent, question, value) else None

    async def _answer_in_time_or_not(self, turn: Turn, question: Step) -> Turn | None:
        """Answer a question that soon expires: at once, or when it has expired."""
        asked = await self._question(turn, question)
        is_late = self._random.random() < 0.5
        if is_late:
            left = datetime.fromisoformat(asked["expires_at"]) - datetime.now(UTC)
            await asyncio.sleep(max(0.0, left.total_seconds()) + AFTER_EXPIRY)
        value = self._value(turn, question)
        sent = await self._insist(self._random.choice(self._by_id), None, {asked["question_id"]: value})
        if sent.said.status == 409:
            self._seen.counts["expired"] += 1
            turn.refused.add(question.key)
            return None
        if is_late:
            self._note_unexpected(turn, sent.said)
        return turn if self._read_answer(turn, sent, question, value) else None

    async def _answer_twice(self, turn: Turn, question: Step) -> Turn | None:
        """Two people answer at the same time, each under a key of its own: one of the answers counts."""
        question_id = await self._question_id(turn, question)
        values = [self._value(turn, question) for _ in range(2)]
        answers = [self._insist(self._random.choice(self._by_id), None, {question_id: value}) for value in values]
        both = await asyncio.gather(*answers)
        self._seen.counts["answered twice at the same time"] += 1
        if sorted(sent.said.status for sent in both) != [200, 409]:
            for sent in both:
                self._note_unexpected(turn, sent.said)
            return None
        [won] = [(sent, value) for sent, value in zip(both, values, strict=True) if sent.said.status == 200]
        return turn if self._read_answer(turn, won[0], question, won[1]) else None

    async def _repeat(self, turn: Turn, question: Step) -> Turn | None:
        """Send an answer twice at the same time under the same key: both requests get the same answer."""
        answers = {await self._question_id(turn, question): (value := self._value(turn, question))}
        protocol, key = self._random.choice(self._by_id), self._key()
        first, second = await asyncio.gather(*(self._insist(protocol, None, answers, key) for _ in range(2)))
        self._seen.counts["repeated under a key"] += 1
        if first.said != second.said:
            self._note_unexpected(turn, second.said)
        return turn if self._read_answer(turn, first, question, value) else None

    async def _answer_without_key(self, turn: Turn, question: Step) -> Turn | None:
        """Answer without a key, and give up if there is no answer to that."""
        answers = {await self._question_id(turn, question): (value := self._value(turn, question))}
        server = self._ports.choose(self._random)
        self._seen.counts["answered without a key"] += 1
        self._takes_text = False
        with suppress(httpx.TransportError):
            said = await CHAT.send(self._client, self._ports.of_servers[server], self.contact, None, answers, None)
            if said.status not in REFUSED:
                return turn if self._read_answer(turn, Sent(said, server, CHAT), question, value) else None
        return None

    async def _supersede(self, turn: Turn, question: Step) -> Turn | None:
        """Send another message, and then the answer, which is too late unless the question stays open."""
        answers = {await self._question_id(turn, question): (value := self._value(turn, question))}
        other, outages = self._new_turn(), self._ports.outages
        # A text would be taken for the answer.
        await self._begin(other, self._random.choice(self._by_id if question.kind == "tell" else self._spoken))
        late = await self._insist(self._random.choice(self._by_id), None, answers)
        if late.said.status == 409 and question.kind != "lasting":
            self._seen.counts["superseded"] += 1
            turn.refused.add(question.key)
            return other
        if question.kind != "lasting" and outages == self._ports.outages:
            self._note_unexpected(turn, late.said)
        self._read_answer(turn, late, question, value)
        self._takes_text = False  # the earlier turn may have asked its next question meanwhile
        return other

    async def _race(self, turn: Turn, question: Step) -> Turn | None:
        """Send the answer and another message at the same time: if the message is first, the answer is too late."""
        answers = {await self._question_id(turn, question): (value := self._value(turn, question))}
        other = self._new_turn()
        answer, message = await asyncio.gather(
            self._insist(self._random.choice(self._by_id), None, answers),
            self._insist(CHAT, other.message, None),
        )
        self._seen.counts["answers that raced with a message"] += 1
        if answer.said.status == 409 and question.kind != "lasting":
            turn.refused.add(question.key)
        else:
            self._read_answer(turn, answer, question, value)
        self._read(other, message)
        self._takes_text = False
        return other

    async def _begin(self, turn: Turn, protocol: Protocol) -> None:
        sent = await self._insist(protocol, turn.message, None)
        self._takes_text = True
        self._read(turn, sent)

    def _read_answer(self, turn: Turn, sent: Sent, question: Step, value: str) -> bool:
        """Note what an answer to a question led to. Returns whether it is the next ending of the turn."""
        asked = self._asked[turn.label]
        if not self._read(turn, sent):
            return False
        turn.answers[question.key] = value
        counts = self._seen.counts
        counts["answered by another protocol"] += sent.protocol is not asked.by.protocol
        counts["answered at another server"] += sent.server != asked.by.server
        counts["answered after a kill"] += self._ports.generation != asked.generation
        return True

    def _read(self, turn: Turn, sent: Sent) -> bool:
        """Note the ending that an answer of the server says. Returns whether it is the next one of the turn."""
        if sent.said.status != 200 or not turn.is_ending(sent.said.text):
            self._note_unexpected(turn, sent.said)
            return False
        turn.acknowledged.append(sent.said.text)
        self._asked[turn.label] = Asked(sent, self._ports.generation, self._ports.outages)
        return True

    def _note_unexpected(self, turn: Turn, said: Said) -> None:
        self._seen.unexpected.append(f"{turn.message}, after {turn.acknowledged}: {said.status} {said.text[:300]}")

    async def _insist(
        self, protocol: Protocol, message: str | None, answers: dict[str, str] | None, key: str | None = None
    ) -> Sent:
        """Send under a key, again and again and at any server, until there is an answer that is no refusal."""
        key = key or self._key()
        while True:
            server = self._ports.choose(self._random)
            with suppress(httpx.TransportError):
                port = self._ports.of_servers[server]
                said = await protocol.send(self._client, port, self.contact, message, answers, key)
                if said.status not in REFUSED:
                    return Sent(said, server, protocol)
            self._seen.counts["repetitions"] += 1
            await asyncio.sleep(PAUSE)

    async def _question_id(self, turn: Turn, question: Step) -> str:
        return str((await self._question(turn, question))["question_id"])

    async def _question(self, turn: Turn, question: Step) -> dict[str, Any]:
        """The question as the thread has it, whichever protocol has asked it."""
        threads = (await self._get("/api/v1/threads", contact_id=self.contact))["threads"]
        events = (await self._get(f"/api/v1/threads/{threads[0]['thread_id']}/events", limit="1000"))["events"]
        asked = [event["event_data"] for event in events if event["event_type"] == "question.asked"]
        found: dict[str, Any] = next(one for one in asked if one["text"] == turn.question(question))
        return found

    async def _get(self, path: str, **query: str) -> Any:
        while True:
            with suppress(httpx.TransportError):
                port = self._ports.of_servers[self._ports.choose(self._random)]
                answer = await self._client.get(f"http://127.0.0.1:{port}{path}", params=query)
                if answer.status_code == 200:
                    return answer.json()
            await asyncio.sleep(PAUSE)

    def _new_turn(self) -> Turn:
        random = self._random
        steps: list[Step] = []
        questions = random.choice((0, 1, 1, 1, 2, 2))
        for number in range(questions + 1):
            steps += [Step(random.choice(("once", "tool")), f"s{number}{each}") for each in range(random.randint(0, 2))]
            if number < questions:
                kind = random.choices(("choose", "tell", "brief", "lasting"), (4, 3, 1, 1))[0]
                steps.append(Step(kind, f"q{number}"))
        turn = Turn(f"{self.contact}-{len(self.turns)}", steps)
        self.turns.append(turn)
        return turn

    def _value(self, turn: Turn, question: Step) -> str:
        is_text = question.kind == "tell"
        value = f"v{self._random.randrange(1000)}" if is_text else self._random.choice(("yes", "no"))
        turn.sent[question.key].add(value)
        return value

    def _key(self) -> str:
        self._keys += 1
        return f"{self.contact}-key-{self._keys}"
