"""What an app can do, in the words of its author, for protocols that tell other programs about it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NOT_IN_AN_ID = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, init=False)
class Skill:
    """One thing that an app can do, for the people and programs that choose an agent.

    `name` and `description` are for people. `tags` are keywords, and `examples` are messages that use the skill. `id`
    is a stable identifier for programs; by default it is made of the name.

    Raises `ValueError` if `name` or `description` is empty, and `TypeError` if `tags` or `examples` is one text.
    """

    name: str
    description: str
    id: str
    tags: tuple[str, ...]
    examples: tuple[str, ...]

    def __init__(
        self,
        name: str,
        description: str,
        *,
        id: str | None = None,
        tags: Sequence[str] = (),
        examples: Sequence[str] = (),
    ) -> None:
        for field, text in (("name", name), ("description", description)):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"the {field} of a skill must be a text that is not empty, not {text!r}")
        for field, texts in (("tags", tags), ("examples", examples)):
            if isinstance(texts, str):
                raise TypeError(f"the {field} of a skill must be a sequence of texts, such as [{texts!r}], not a str")
        values = {
            "name": name,
            "description": description,
            "id": id or _NOT_IN_AN_ID.sub("-", name.lower()).strip("-") or "skill",
            "tags": tuple(tags),
            "examples": tuple(examples),
        }
        for field, value in values.items():
            object.__setattr__(self, field, value)
