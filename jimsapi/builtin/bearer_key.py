"""The auth provider for keys: `Authorization: Bearer <key>` (RFC 6750).

Plain keys come from flags, `JIMS_API_KEY` and the file of `JIMS_API_KEY_FILE`; they have all rights. Named keys come
from the keys file, which also limits their rights. All keys are valid at the same time, so operators can replace a key
without an interruption. Both files are read again when they change.
"""

import json
import logging
import stat
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jimsapi.asgi import Connection
from jimsapi.builtin.keys_file import NamedKey, digest_of, parse_keys
from jimsapi.builtin.watched_file import WatchedFile
from jimsapi.plugins import (
    InvalidCredentials,
    Options,
    Secret,
    Settings,
    StartError,
    hookimpl,
    matches_any,
    option,
    secret_lines,
    secret_text,
)
from jimsapi.runs import Identity

if TYPE_CHECKING:
    import click

logger = logging.getLogger("jimsapi.key")


RECOMMENDED_LENGTH = 16
"""Characters. A shorter plain key causes a warning. This many random letters and digits cannot be guessed."""

MOST_ADMITTED = 64
"""The values of `Authorization` that a provider remembers at most. A caller can write one key in many ways."""


class KeyOptions(Options):
    """Options of the bearer keys."""

    api_key: tuple[Secret, ...] = option(
        help="A key that callers send as a bearer token; repeat it to change keys. The keys of all sources are valid."
    )
    keys_file: Path | None = option(
        help="A file of named keys with limits, stored as hashes; `jimsapi keys` writes it."
    )


class KeyIdentity(msgspec.Struct, frozen=True):
    """The identity of a named key, and when the key expires, in seconds since 1970; None if never."""

    identity: Identity
    expires: float | None


class _Admitted(set[str]):
    """The values of `Authorization` that had a key which stays valid. Its `repr` does not show them.

    A look-up saves a twentieth of the time of a validated POST. It takes equally long for all wrong keys.
    """

    def __repr__(self) -> str:
        return f"<{len(self)} values of Authorization>"


KeyTable = Mapping[bytes, KeyIdentity]
"""The identities of named keys, by the SHA-256 hash of the key."""


class BearerKey:
    """Admits requests with a valid key.

    `keys` are valid while the server runs, the keys of `plain` and `named` while they are in their files. A plain key
    is not bound to a contact and has every scope. `clock` returns seconds since 1970.
    """

    name = "key"
    challenge = 'Bearer realm="jimsapi"'

    def __init__(
        self,
        keys: tuple[Secret, ...],
        plain: WatchedFile[tuple[Secret, ...]] | None = None,
        named: WatchedFile[KeyTable] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._plain = plain
        self._named = named
        self._clock = clock
        self._admitted = _Admitted()

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Return the identity of a valid key, or None if the request has no bearer token.

        Raises `InvalidCredentials` if the key is wrong, expired or empty.
        """
        authorization = connection.headers.get("authorization")
        if authorization is None:
            return None
        if authorization in self._admitted:
            return _PLAIN_KEY
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = token.strip(" ")
        if not token:
            raise InvalidCredentials("the token is empty")
        if self._keys and matches_any(self._keys, token):
            if len(self._admitted) < MOST_ADMITTED:
                self._admitted.add(authorization)
            return _PLAIN_KEY
        if self._plain is not None and matches_any(self._plain.current(), token):
            return _PLAIN_KEY
        if self._named is not None:
            return self._identity_of(self._named.current(), token)
        raise InvalidCredentials("no such key")

    def _identity_of(self, table: KeyTable, token: str) -> Identity:
        # The time of this lookup may depend on the hashes in the table. That does not help an attacker, who cannot
        # choose the hash of a guessed key.
        key = table.get(digest_of(token.encode("latin-1", "replace")))
        if key is None:
            raise InvalidCredentials("no such key")
        if key.expires is not None and self._clock() >= key.expires:
            raise InvalidCredentials(f"{key.identity.subject} has expired")
        return key.identity


_PLAIN_KEY = Identity("key")


def plain_keys(data: bytes) -> tuple[Secret, ...] | None:
    """Return the keys of a file with one key a line; None if it has only comments.

    Raises `ValueError` if the file is not UTF-8 text, or is JSON.
    """
    text = secret_text(data)
    if _is_object(text):
        raise ValueError("it holds JSON, not one key a line; name a keys file with --keys-file or JIMS_KEYS_FILE")
    return tuple(Secret(line) for line in secret_lines(text)) or None


def _is_object(text: str) -> bool:
    """Whether the text is JSON, such as a keys file. Its lines, such as a single brace, must not become keys."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


class KeyTableParser:
    """Parses a keys file into a table, each time the file changes.

    A key that did not change keeps its `Identity` object, because the server identifies callers by that object.
    """

    def __init__(self) -> None:
        self._table: KeyTable = {}

    def __call__(self, data: bytes) -> KeyTable:
        """Return the table. Raises `ValueError` for an invalid file."""
        table = {bytes.fromhex(key.sha256): _key_identity(key) for key in parse_keys(data)}
        for digest, new in table.items():
            old = self._table.get(digest)
            if old == new:
                table[digest] = old
        self._table = table
        return table


def _key_identity(key: NamedKey) -> KeyIdentity:
    identity = Identity(
        f"key:{key.name}",
        contact_id=key.contact_id if isinstance(key.contact_id, str) else None,
        scopes=frozenset(key.scopes) if isinstance(key.scopes, tuple) else None,
    )
    return KeyIdentity(identity, key.expires.timestamp() if isinstance(key.expires, datetime) else None)


@hookimpl
def jimsapi_options() -> type[Options]:
    return KeyOptions


@hookimpl
def jimsapi_auth_provider(settings: Settings) -> BearerKey | None:
    sources = settings.sources("api_key")
    keys_file = settings.get(KeyOptions).keys_file
    if not sources.given and sources.file is None and keys_file is None:
        return None
    plain: WatchedFile[tuple[Secret, ...]] | None = None
    if sources.file is not None:
        plain = WatchedFile(sources.file, sources.variable, plain_keys, ())
    _warn_about_short_keys((*sources.given, *(() if plain is None else plain.current())))
    named = None if keys_file is None else _watch_named(keys_file)
    if not sources.given and plain is None and named is not None and not named.current():
        logger.warning("--keys-file: %s HOLDS NO KEY, so no key is valid; `jimsapi keys new` creates one", keys_file)
    return BearerKey(sources.given, plain, named)


def _warn_about_short_keys(keys: tuple[Secret, ...]) -> None:
    short = sum(len(key.reveal()) < RECOMMENDED_LENGTH for key in keys)
    if short:
        logger.warning(
            "%d of %d plain keys (--api-key, JIMS_API_KEY, JIMS_API_KEY_FILE) have fewer than %d characters, and might "
            "be guessed: use long random ones, for example from `openssl rand -base64 32`",
            short,
            len(keys),
            RECOMMENDED_LENGTH,
        )


def _watch_named(path: Path) -> WatchedFile[KeyTable]:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        command = f"jimsapi keys new NAME --keys-file {path}"
        raise StartError(f"--keys-file: there is no {path}; `{command}` creates it") from None
    except OSError as error:
        raise StartError(f"--keys-file: {path}: cannot be read ({error.strerror})") from None
    watched: WatchedFile[KeyTable] = WatchedFile(path, "--keys-file", KeyTableParser(), {})
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        permission = "change" if mode & stat.S_IWOTH else "read"
        logger.warning("--keys-file: everybody on this machine may %s %s; chmod 600 it", permission, path)
    return watched


@hookimpl
def jimsapi_commands(cli: "click.Group") -> None:
    from jimsapi.builtin.keys_command import keys

    cli.add_command(keys)
