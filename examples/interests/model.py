"""A language model that reads questions and phrases answers, through any OpenAI-compatible API."""

import asyncio
import json
import os
import re
from dataclasses import dataclass, field
from typing import Any

from .answer import Answer
from .names import APOSTROPHES, Names
from .query import Query
from .reading import ReadingError, parse_query

DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_MODEL = "gpt-4.1-mini"

_TASK = (
    "You phrase the answer to a question about people and their interests. You get JSON: the question, the rows that a "
    "database found, and a plain answer made from them. Say the same in one or two friendly sentences, in the language "
    "of the question. Write each name exactly as it stands in the rows, leave none out and add none."
)


_READING_TASK = """You translate a question about people and their interests into one JSON object. You do not answer it.
Fields, of which you omit those that are empty:
- "ask": "list", "count", "check" (yes or no), "most" or "fewest" (who has the most interests, or which interest has the
  most people), or "unknown"
- "find": "people" or "interests": what is listed, counted or ranked
- "all", "any", "exactly_one", "none": names that each of these must have. Of people these are names of interests, of
  interests names of people
- "except": names that are left out
- "people", with "check": the people who are asked about; without it, everybody is
- "quantity", with "check": "every", "some" or "none" of these people
Copy names as they are in the question, and invent none. Use "unknown" if the question asks for anything else, such as
how much somebody likes something, if it refers to earlier messages, or if a word of it would count for nothing.
Example: "Which folks are keen about Chess yet never about Go?" is
{"ask": "list", "find": "people", "all": ["Chess"], "none": ["Go"]}"""


class ModelError(Exception):
    """The model returned no usable text. The message contains neither the key nor the server's text."""


@dataclass(frozen=True)
class Phrasing:
    """The result of a call of the model: a `text`, or an `error` that says why there is none, and the tokens used."""

    text: str | None = None
    error: str | None = None
    tokens: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelReading:
    """How a model read a question: the `query`, or None if it cannot be asked of the graph, or an `error`."""

    query: Query | None = None
    error: str | None = None
    tokens: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """The name and address of a model. `timeout` is in seconds and covers the whole call."""

    name: str
    base_url: str = DEFAULT_BASE_URL
    api_key: str = field(default="", repr=False)
    timeout: float = 30

    async def read(self, question: str, people: Names, interests: Names) -> ModelReading:
        """Return the query that a question asks.

        A reading with a name that the question does not have, or without one that it has, is an error.
        """
        tokens: dict[str, int] = {}
        try:
            reply = await self._complete(_READING_TASK, question)
            tokens = _tokens(reply)
            query = parse_query(_text(reply), question, people, interests)
        except (ModelError, ReadingError) as error:
            return ModelReading(error=str(error), tokens=tokens)
        return ModelReading(query, tokens=tokens)

    async def phrase(self, question: str, answer: Answer) -> Phrasing:
        """Return the answer in the model's words.

        An answer has to be complete and true, so a text that omits one of its names, or adds another name of that kind,
        is an error.
        """
        facts = {"question": question, "rows": answer.names, "plain_answer": answer.text}
        tokens: dict[str, int] = {}
        try:
            reply = await self._complete(_TASK, json.dumps(facts, ensure_ascii=False))
            tokens = _tokens(reply)
            text = _text(reply)
            _check_names(text, answer)
        except ModelError as error:
            return Phrasing(error=str(error), tokens=tokens)
        return Phrasing(text=text, tokens=tokens)

    async def _complete(self, task: str, content: str) -> Any:
        try:
            async with asyncio.timeout(self.timeout):
                return await self._post(task, content)
        except TimeoutError:
            raise ModelError(f"no answer within {self.timeout:g} s") from None

    async def _post(self, task: str, content: str) -> Any:
        # Imported here, so that a server without a model does not load it.
        import httpx

        messages = [{"role": "system", "content": task}, {"role": "user", "content": content}]
        try:
            headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
            async with httpx.AsyncClient(timeout=None) as client:
                response = await client.post(
                    f"{self.base_url.rstrip('/')}/chat/completions",
                    json={"model": self.name, "messages": messages},
                    headers=headers,
                )
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # The message has only the kind of error, because its text may quote the address or a header.
            raise ModelError(f"the request failed ({type(error).__name__})") from None
        if not response.is_success:
            raise ModelError(f"the server answered with status {response.status_code}")
        try:
            return response.json()
        except ValueError:
            raise ModelError("the server's answer is not JSON") from None


def configured_model() -> Model | None:
    """Return the model that `OPENAI_BASE_URL`, `OPENAI_API_KEY` and `OPENAI_MODEL` name.

    Returns None if neither an address nor a key is set. An empty variable counts as unset.
    """
    base_url, api_key = os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")
    if not base_url and not api_key:
        return None
    return Model(os.environ.get("OPENAI_MODEL") or DEFAULT_MODEL, base_url or DEFAULT_BASE_URL, api_key or "")


def _text(reply: Any) -> str:
    try:
        text = reply["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        text = None
    if not isinstance(text, str) or not text.strip():
        raise ModelError("the server's answer holds no text")
    return text.strip()


def _tokens(reply: Any) -> dict[str, int]:
    usage = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(usage, dict):
        return {}
    return {kind: count for kind, count in usage.items() if isinstance(count, int)}


def _check_names(text: str, answer: Answer) -> None:
    unmatched = text.translate(APOSTROPHES)
    names = set(answer.names)
    # Longer names are removed first, so that "Apple Cider" does not count as "Cider".
    for name in sorted(names, key=len, reverse=True):
        unmatched, count = re.subn(_pattern(name), "|", unmatched, flags=re.IGNORECASE)
        if not count:
            raise ModelError(f"the model left out {name}")
    for name in answer.all_names:
        # This is case-sensitive: a text may have "love to go" although Love and Go are interests.
        if name not in names and re.search(_pattern(name), unmatched):
            raise ModelError(f"the model added {name}")


def _pattern(name: str) -> str:
    return rf"(?<!\w){re.escape(name.translate(APOSTROPHES))}(?!\w)"
