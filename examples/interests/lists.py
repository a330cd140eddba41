"""Lists of names with "and", "or" and "not": what "Quokkas or Mosaic, but not Yodelling" asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto


class Role(Enum):
    """What a word does in a list."""

    COMMA = auto()
    AND = auto()
    OR = auto()
    NOR = auto()
    BUT = auto()
    NOT = auto()
    BOTH = auto()
    EITHER = auto()
    NEITHER = auto()
    POSSESSIVE = auto()


_ANDS = {(Role.COMMA,), (Role.AND,), (Role.COMMA, Role.AND)}
_ORS = {(Role.OR,), (Role.COMMA, Role.OR)}
_NORS = {(Role.NOR,), (Role.COMMA, Role.NOR), *_ORS}
_NOTS = {(*comma, *word, Role.NOT) for comma in ((), (Role.COMMA,)) for word in ((), (Role.AND,), (Role.BUT,))}
_BUT_NOT_BOTH = (Role.BUT, Role.NOT, Role.BOTH)
_OR_BOTH = (Role.OR, Role.BOTH)


class ListError(Exception):
    """A list that has no meaning, or more than one."""


class MixedError(ListError):
    """A list in which it is open which names belong together: "A and B or C"."""


@dataclass(frozen=True)
class Terms:
    """The positions of names in a sentence: all of `all`, any of `any`, exactly one of `one`, and none of `none`.

    `together`: the list says that "and" means at the same time, by "both" or "all".
    """

    all: tuple[int, ...] = ()
    any: tuple[int, ...] = ()
    one: tuple[int, ...] = ()
    none: tuple[int, ...] = ()
    together: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the list has only names and "and"."""
        return bool(self.all) and not (self.any or self.one or self.none)


def read_list(text: str, roles: Mapping[str, Role]) -> Terms:
    """Read a list in which names are `<n>`. Raises `ListError`."""
    names: list[int] = []
    # between[n] are the words before the name n, and the last item those behind the last name.
    between: list[tuple[Role, ...]] = [()]
    for word in text.split():
        if word.startswith("<"):
            names.append(int(word[1:-1]))
            between.append(())
        elif roles[word] is not Role.POSSESSIVE:
            between[-1] = (*between[-1], roles[word])
    if not names:
        raise ListError
    return _terms(names, between[0], between[1:-1], _without_comma(between[-1]))


def _without_comma(words: tuple[Role, ...]) -> tuple[Role, ...]:
    return tuple(word for word in words if word is not Role.COMMA)


def _terms(
    names: Sequence[int], before: tuple[Role, ...], between: Sequence[tuple[Role, ...]], behind: tuple[Role, ...]
) -> Terms:
    if before == (Role.NEITHER,):
        if behind or len(names) < 2 or not {*between} <= {*_NORS, (Role.COMMA,)} or between[-1] == (Role.COMMA,):
            raise ListError
        return Terms(none=tuple(names))
    if before == (Role.NOT,):
        if behind:
            raise ListError
        return Terms(none=_negative(names, between))
    split = next((place for place, words in enumerate(between) if words in _NOTS), None)
    if split is None:
        return _positive(names, before, between, behind)
    if behind == (Role.BOTH,):
        raise ListError
    positive = _positive(names[: split + 1], before, between[:split], ())
    if positive.any and Role.AND in between[split]:
        raise MixedError
    if behind:
        raise ListError
    none = _negative(names[split + 1 :], between[split + 1 :])
    return Terms(positive.all, positive.any, positive.one, none, positive.together)


def _positive(
    names: Sequence[int], before: tuple[Role, ...], between: Sequence[tuple[Role, ...]], behind: tuple[Role, ...]
) -> Terms:
    if behind == _OR_BOTH and len(names) == 2 and not before and Role.AND not in between[0]:
        return Terms(any=tuple(names))
    ands = sum(words in _ANDS for words in between)
    ors = sum(words in _ORS for words in between)
    if ands + ors != len(between) or before not in ((), (Role.BOTH,), (Role.EITHER,)):
        raise ListError
    if ors:
        # "A, B or C": the commas stand for the "or" at the end.
        if any(Role.AND in words for words in between) or between[-1] not in _ORS:
            raise MixedError
        if before == (Role.BOTH,) or behind not in ((), _BUT_NOT_BOTH):
            raise ListError
        if behind:
            return Terms(one=tuple(names))
        return Terms(any=tuple(names))
    together = (Role.BOTH,) in (before, behind)
    if before == (Role.EITHER,) or behind not in ((), (Role.BOTH,)) or (together and len(names) < 2):
        raise ListError
    return Terms(all=tuple(names), together=together)


def _negative(names: Sequence[int], between: Sequence[tuple[Role, ...]]) -> tuple[int, ...]:
    """Return the names behind a "not". "Not A and B" has two meanings, "not A or B" and "not A and not B" have one."""
    repeated = all(words in _NOTS for words in between)
    commas = {*between} <= {*_NORS, (Role.COMMA,)} and between and between[-1] in _NORS
    if not (repeated or commas):
        raise MixedError
    return tuple(names)
