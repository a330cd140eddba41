"""Text that records comparisons with a secret that stop at the first difference, whose time reveals the secret."""

from collections.abc import Callable, Sequence
from typing import Any

from jimsapi.asgi.connection import Connection
from jimsapi.asgi.fields import Headers
from jimsapi.asgi.types import Scope
from jimsapi.plugins.secrets import Secret

_COMPARISONS = {
    "__eq__": "==",
    "__ne__": "!=",
    "__lt__": "<",
    "__le__": "<=",
    "__gt__": ">",
    "__ge__": ">=",
    "__contains__": "in",
    "startswith": "startswith",
    "endswith": "endswith",
    "find": "find",
    "index": "index",
    "count": "count",
}
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in")
_DERIVED = (
    "__add__", "__getitem__", "__str__", "capitalize", "casefold", "decode", "encode", "lower", "lstrip", "partition",
    "removeprefix", "removesuffix", "replace", "rpartition", "rsplit", "rstrip", "split", "splitlines", "strip",
    "swapcase", "title", "upper",
)  # fmt: skip


class _Watched:
    """The base of both kinds of text: the secrets, and the list in which comparisons with them are recorded."""

    secrets: Sequence[str]
    seen: list[str]

    def record(self, how: str, others: tuple[Any, ...]) -> None:
        for other in others:
            for one in other if isinstance(other, tuple) else (other,):
                if isinstance(one, str | bytes) and (_holds(one, self.secrets) or self._is_guessed_by(how, one)):
                    self.seen.append(how)

    def _is_guessed_by(self, how: str, other: str | bytes) -> bool:
        """Whether this text has a secret and the other may be a guess. Short text, such as a colon, is not a guess."""
        assert isinstance(self, str | bytes)
        return how in _OPERATORS and len(other) >= 4 and _holds(self, self.secrets)


class WatchedText(_Watched, str):  # noqa: SLOT000 # its attributes need a `__dict__`
    """A `str` that records comparisons with `secrets` in `seen`. Its slices and parts do so too."""


class WatchedBytes(_Watched, bytes):
    """`bytes` that do the same."""


def watch(value: Any, secrets: Sequence[str], seen: list[str]) -> Any:
    """Make text, or a list or tuple of text, record comparisons. Other values do not change."""
    if isinstance(value, list | tuple):
        return type(value)(watch(one, secrets, seen) for one in value)
    if not isinstance(value, str | bytes):
        return value
    watched: WatchedText | WatchedBytes = WatchedText(value) if isinstance(value, str) else WatchedBytes(value)
    watched.secrets, watched.seen = secrets, seen
    return watched


def _comparing(base: type, name: str) -> Callable[..., Any]:
    plain = getattr(base, name)

    def compare(self: Any, *others: Any) -> Any:
        self.record(_COMPARISONS[name], others)
        return plain(self, *others)

    return compare


def _deriving(base: type, name: str) -> Callable[..., Any]:
    plain = getattr(base, name)

    def derive(self: Any, *arguments: Any, **named: Any) -> Any:
        return watch(plain(self, *arguments, **named), self.secrets, self.seen)

    return derive


for _kind, _base in ((WatchedText, str), (WatchedBytes, bytes)):
    for _name in _COMPARISONS:
        setattr(_kind, _name, _comparing(_base, _name))
    for _name in _DERIVED:
        if hasattr(_base, _name) and (_name, _base) != ("__str__", bytes):
            setattr(_kind, _name, _deriving(_base, _name))


class WatchedHeaders(Headers):
    """Headers whose values record comparisons."""

    __slots__ = ("secrets", "seen")

    secrets: Sequence[str]
    seen: list[str]

    def get(self, name: str) -> str | None:
        value: str | None = watch(super().get(name), self.secrets, self.seen)
        return value

    def getlist(self, name: str) -> list[str]:
        values: list[str] = watch(super().getlist(name), self.secrets, self.seen)
        return values


class WatchedConnection(Connection):
    """A connection whose headers and cookies record in `seen` how they are compared with `secrets`."""

    __slots__ = ()

    def __init__(self, scope: Scope, secrets: Sequence[str], seen: list[str]) -> None:
        super().__init__(scope)
        headers = WatchedHeaders(scope["headers"])
        headers.secrets, headers.seen = secrets, seen
        self._headers = headers
        self._cookies = {name: watch(value, secrets, seen) for name, value in super().cookies.items()}


class WatchedSecret(Secret):
    """A `Secret` that does not record comparisons by `matches`, but those of the text that it reveals."""

    __slots__ = ("secrets", "seen")

    def __init__(self, value: str, secrets: Sequence[str], seen: list[str]) -> None:
        super().__init__(value)
        self.secrets, self.seen = secrets, seen

    def reveal(self) -> str:
        revealed: str = watch(super().reveal(), self.secrets, self.seen)
        return revealed


def _holds(text: str | bytes, secrets: Sequence[str]) -> bool:
    # `in` would be recorded as a comparison.
    if isinstance(text, bytes):
        return any(bytes.__contains__(text, secret.encode()) for secret in secrets)
    return any(str.__contains__(text, secret) for secret in secrets)
