"""Auth by keys: `Authorization: Bearer <key>` (RFC 6750).

There are plain keys, from flags, `JIMS_API_KEY` and the file of `JIMS_API_KEY_FILE`, which may do everything; and the
named keys of the keys file, which may do what the file says. All are valid together, so that keys are changed without a
gap, and both files are read again when they change.
"""

import json
import logging
import stat
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jimsapi.asgi.connection import Connection
from jimsapi.builtin.keys_file import NamedKey, digest_of, parse_keys
from jimsapi.builtin.watched_file import WatchedFile
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.hooks import hookimpl
from jimsapi.plugins.options import (
    Options,
    Secret,
    Settings,
    matches_any,
    option,
    secret_lines,
    secret_text,
)
from jimsapi.plugins.protocols import InvalidCredentials
from jimsapi.runs.identity import Identity

if TYPE_CHECKING:
    import click

logger = logging.getLogger("jimsapi.key")


SHORT = 16
"""Characters. A plain key with fewer is warned of: random letters and digits of this number are beyond all guessing."""


class KeyOptions(Options):
    """Options of the bearer keys."""

    api_key: tuple[Secret, ...] = option(
        help="A key that callers send as a bearer token; repeat it to change keys. Those of all sources are valid."
    )
    keys_file: Path | None = option(
        help="A file of named keys with limits, which `jimsapi keys` writes; it has hashes."
    )


class Holder(msgspec.Struct, frozen=True):
    """Who a named key admits, and until when, in seconds since 1970."""

    identity: Identity
    expires: float | None


Holders = Mapping[bytes, Holder]
"""By the hash of their key."""


class BearerKey:
    """Admits holders of a key.

    `keys` are valid as long as the server runs, those of `plain` and `named` as long as they are in their files. A
    plain key is unbound and has every scope. `clock` gives seconds since 1970, by which named keys expire.
    """

    name = "key"
    challenge = 'Bearer realm="jimsapi"'

    def __init__(
        self,
        keys: tuple[Secret, ...],
        plain: WatchedFile[tuple[Secret, ...]] | None = None,
        named: WatchedFile[Holders] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._plain = plain
        self._named = named
        self._clock = clock

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Admit a right key; None without a bearer token; `InvalidCredentials` for a wrong, expired or empty one."""
        authorization = connection.headers.get("authorization")
        if authorization is None:
            return None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = token.strip(" ")
        if not token:
            raise InvalidCredentials("the token is empty")
        keys = self._keys if self._plain is None else chain(self._keys, self._plain.current())
        if matches_any(keys, token):
            return _HOLDER
        if self._named is not None:
            return self._holder(self._named.current(), token)
        raise InvalidCredentials("no such key")

    def _holder(self, holders: Holders, token: str) -> Identity:
        # Looking a hash up may take a time that depends on the hashes there are. That tells nothing of use: who does
        # not know a key cannot choose what his guess hashes to, and so cannot feel his way towards a hash.
        holder = holders.get(digest_of(token.encode("latin-1", "replace")))
        if holder is None:
            raise InvalidCredentials("no such key")
        if holder.expires is not None and self._clock() >= holder.expires:
            raise InvalidCredentials(f"{holder.identity.subject} has expired")
        return holder.identity


_HOLDER = Identity("key")


def plain_keys(data: bytes) -> tuple[Secret, ...] | None:
    """The keys of a file with one a line; None if it has none, but comments. Raises `ValueError` for no such file."""
    text = secret_text(data)
    if _is_object(text):
        raise ValueError("it holds JSON, not a key a line; a keys file is named by --keys-file or JIMS_KEYS_FILE")
    return tuple(Secret(line) for line in secret_lines(text)) or None


def _is_object(text: str) -> bool:
    """Whether it is a keys file, say, whose lines, a single brace among them, must not become keys."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


class HolderTable:
    """Makes the table of a keys file's holders, anew when the file changes.

    A key that did not change keeps its `Identity` object: the host recognises callers by it.
    """

    def __init__(self) -> None:
        self._last: Holders = {}

    def __call__(self, data: bytes) -> Holders:
        """Raises `ValueError` for a faulty file."""
        made = {bytes.fromhex(key.sha256): _holder_of(key) for key in parse_keys(data)}
        for digest, holder in made.items():
            last = self._last.get(digest)
            if last == holder:
                made[digest] = last
        self._last = made
        return made


def _holder_of(key: NamedKey) -> Holder:
    identity = Identity(
        f"key:{key.name}",
        contact_id=key.contact_id if isinstance(key.contact_id, str) else None,
        scopes=frozenset(key.scopes) if isinstance(key.scopes, tuple) else None,
    )
    return Holder(identity, key.expires.timestamp() if isinstance(key.expires, datetime) else None)


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
    _warn_of_short((*sources.given, *(() if plain is None else plain.current())))
    named = None if keys_file is None else _watch_named(keys_file)
    if not sources.given and plain is None and named is not None and not named.current():
        logger.warning("--keys-file: %s HOLDS NO KEY: no key admits anybody; `jimsapi keys new` makes one", keys_file)
    return BearerKey(sources.given, plain, named)


def _warn_of_short(keys: tuple[Secret, ...]) -> None:
    short = sum(len(key.reveal()) < SHORT for key in keys)
    if short:
        logger.warning(
            "%d of %d plain keys (--api-key, JIMS_API_KEY, JIMS_API_KEY_FILE) have fewer than %d characters, and might "
            "be guessed: give long random ones, for example of `openssl rand -base64 32`",
            short,
            len(keys),
            SHORT,
        )


def _watch_named(path: Path) -> WatchedFile[Holders]:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        way_out = f"`jimsapi keys new NAME --keys-file {path}` makes it"
        raise StartError(f"--keys-file: there is no {path}; {way_out}") from None
    except OSError as error:
        raise StartError(f"--keys-file: {path}: cannot be read ({error.strerror})") from None
    watched: WatchedFile[Holders] = WatchedFile(path, "--keys-file", HolderTable(), {})
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        may = "change" if mode & stat.S_IWOTH else "read"
        logger.warning("--keys-file: everybody on this machine may %s %s; chmod 600 it", may, path)
    return watched


@hookimpl
def jimsapi_commands(cli: "click.Group") -> None:
    from jimsapi.builtin.keys_command import keys

    cli.add_command(keys)
