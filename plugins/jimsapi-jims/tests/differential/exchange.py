"""Sends the corpus to a server, and writes down what it answers in a form that two servers can share."""

import http.client
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Barrier
from typing import Any

from differential.corpus import Exchange
from differential.differences import CUT_OFF

TIMEOUT = 60.0
HUNG_UP = 0

FURTHER = frozenset(("started", "delta", "event", "gap"))
"""Events that a stream of jimsapi may hold beside `status`, `result` and `error`. JIMS's clients pass over them, and so
does this one."""

_THREAD = re.compile(r"<thread of ([^>,]+)(, without dashes|, in capitals)?>")
_ANSWERED = re.compile(r'(?:^|\["result", )\{"thread_id": "([^"]+)"')


@dataclass(frozen=True)
class Answer:
    """What a server answered; the status is 0 if it hung up instead.

    A JSON body is written as Python writes it, its keys in the server's order; of a stream that is the list of its
    events, each a list of name and data, and `CUT_OFF` if its end is missing. Threads are named by the request that was
    first answered from them.
    """

    status: int
    content_type: str | None
    body: str


class Talk:
    """A talk with one server, which `ports` names the ports of; it remembers the threads."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports
        self._threads: dict[str, str] = {}

    def answers(self, exchange: Exchange) -> list[Answer]:
        """Send all copies of a request at once; returns their answers, in the order of the copies' numbers."""
        numbers = range(exchange.copies)
        connected = Barrier(exchange.copies)
        with ThreadPoolExecutor(exchange.copies) as pool:
            answers = list(pool.map(lambda number: self._send(exchange, number, connected), numbers))
        for number, answer in zip(numbers, answers, strict=True):
            self._remember(answer, exchange.name if exchange.copies == 1 else f"{exchange.name} {number}")
        return [Answer(answer.status, answer.content_type, self._named(answer.body)) for answer in answers]

    def _send(self, exchange: Exchange, number: int, connected: Barrier) -> Answer:
        body = None if exchange.body is None else self._filled_in(exchange.body, number)
        with closing(http.client.HTTPConnection("127.0.0.1", self._ports[exchange.server], timeout=TIMEOUT)) as wire:
            wire.connect()
            # On a loaded machine, connections that are made while others send already would follow each other by so
            # much that each copy is answered before the next arrives.
            connected.wait(TIMEOUT)
            wire.putrequest(exchange.method, exchange.path, skip_accept_encoding=True)
            for name, value in exchange.headers:
                wire.putheader(name, value)
            if exchange.chunked:
                wire.putheader("transfer-encoding", "chunked")
            elif body is not None or exchange.method == "POST":
                wire.putheader("content-length", str(len(body or b"")))
            with suppress(
                BrokenPipeError, ConnectionResetError
            ):  # it would not have all of the body, and may have answered
                wire.endheaders(body, encode_chunked=exchange.chunked)
            try:
                answer = wire.getresponse()
                content_type = answer.headers["content-type"]
                if (content_type or "").startswith("text/event-stream"):
                    events = _until_a_status(answer) if exchange.leaves else _to_the_end(answer)
                    return Answer(answer.status, content_type, json.dumps(events))
                return Answer(answer.status, content_type, _text(answer.read()))
            except (http.client.HTTPException, ConnectionError):
                return Answer(HUNG_UP, None, "")

    def _filled_in(self, body: bytes, number: int) -> bytes:
        def thread(found: re.Match[str]) -> str:
            known = next(name for name, title in self._threads.items() if title == f"<thread of {found[1]}>")
            return {None: known, ", without dashes": known.replace("-", "")}.get(found[2], known.upper())

        if b"<" not in body or len(body) > 100_000:
            return body
        return _THREAD.sub(thread, body.decode()).replace("<n>", str(number)).encode()

    def _remember(self, answer: Answer, name: str) -> None:
        if answer.status == 200 and (told := _ANSWERED.search(answer.body)):
            self._threads.setdefault(told[1], f"<thread of {name}>")

    def _named(self, text: str) -> str:
        for thread, name in self._threads.items():
            text = text.replace(thread, name)
        return text


def _until_a_status(answer: http.client.HTTPResponse) -> list[Any]:
    events = []
    for event in _events(answer):
        events.append(event)
        if event[0] == "status":
            break
    return events


def _to_the_end(answer: http.client.HTTPResponse) -> list[Any]:
    try:
        return list(_events(answer.read().splitlines()))
    except http.client.IncompleteRead as cut:
        return [*_events(cut.partial.splitlines()), CUT_OFF]


def _events(lines: Iterable[bytes]) -> Iterator[list[Any]]:
    """The events of a stream (WHATWG HTML, 9.2.6), each its name and its data, without the `FURTHER` ones."""
    name, data = "message", list[str]()
    for line in lines:
        field, _, value = line.decode().rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not field and not value:  # the empty line, which ends an event
            if data and name not in FURTHER:
                yield [name, json.loads("\n".join(data))]
            name, data = "message", []


def _text(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body))
    except ValueError:
        return body.decode(errors="backslashreplace")
