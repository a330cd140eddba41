"""An auth plugin in many versions: one that keeps the contract, and some that each break one thing.

The tests install this module as the distribution `acme-door`; the option `--door-version` chooses.
"""

import asyncio
import hmac
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from jimsapi import (
    AccessDenied,
    AuthUnavailable,
    Connection,
    Identity,
    InvalidCredentials,
    Options,
    Secret,
    hookimpl,
    option,
)

logger = logging.getLogger("acme_door")

PEOPLE = ("ann", "ben", "eve")


class Directory:
    """What the provider asks; it may be away."""

    away = False


class DoorOptions(Options, prefix="door"):
    secret: Secret | None = option(help="What comes after the year.")
    place: str | None = option(help="Where the door is.")
    plain: str | None = option(help="A secret that is declared as text.")
    version: str = option("Sound", help="The class that is built.")


class Sound:
    """`x-door: person/year/secret`, for a year that is not over."""

    name = "door"
    challenge = 'Door realm="acme"'

    def __init__(self, secret: Secret) -> None:
        self.secret = secret
        self.slots = asyncio.Semaphore(3)

    async def authenticate(self, connection: Connection) -> Identity | None:
        values = self.values(connection)
        if not values:
            return None
        if len(values) > 1:
            raise InvalidCredentials("the header came twice")
        person, _, rest = values[0].partition("/")
        year, _, secret = rest.partition("/")
        if not self.is_year(year):
            raise InvalidCredentials("malformed")
        async with self.slots:
            await self.ask()
        if person not in PEOPLE or not self.matches(secret):
            raise InvalidCredentials("wrong")
        if int(year) < 2020:
            raise InvalidCredentials("expired")
        if person == "eve":
            raise AccessDenied("not eve")
        return Identity(person, contact_id=person)

    def values(self, connection: Connection) -> list[str]:
        return connection.headers.getlist("x-door")

    def is_year(self, year: str) -> bool:
        return len(year) == 4 and year.isascii() and year.isdigit()

    def matches(self, secret: str) -> bool:
        return self.secret.matches(secret)

    async def ask(self) -> None:
        await asyncio.sleep(0)
        if Directory.away:
            raise AuthUnavailable("the directory is away")
        await asyncio.sleep(0)


class OneTime(Sound):
    """`x-door: person/year/nonce:signature`, each admitted once."""

    def __init__(self, secret: Secret) -> None:
        super().__init__(secret)
        self.used: set[str] = set()

    async def authenticate(self, connection: Connection) -> Identity | None:
        identity = await super().authenticate(connection)
        if identity is not None:
            await self.use(self.values(connection)[0])
        return identity

    async def use(self, value: str) -> None:
        if value in self.used:
            raise InvalidCredentials("it was used before")
        self.used.add(value)

    def matches(self, secret: str) -> bool:
        nonce, _, signature = secret.partition(":")
        return hmac.compare_digest(signature.encode(), sign(self.secret.reveal(), nonce).encode())


class AdmitsTwice(OneTime):
    async def use(self, value: str) -> None:
        pass


class NotesLate(OneTime):
    async def use(self, value: str) -> None:
        if value in self.used:
            raise InvalidCredentials("it was used before")
        await asyncio.sleep(0)
        self.used.add(value)


class LogsTheSignature(OneTime):
    def matches(self, secret: str) -> bool:
        logger.debug("checking %s", secret)
        return super().matches(secret)


class ComparesSignatures(OneTime):
    def matches(self, secret: str) -> bool:
        nonce, _, signature = secret.partition(":")
        return signature == sign(self.secret.reveal(), nonce)


SHARED: set[str] = set()
"""Nonces that were used, for providers that share them."""


def sign(secret: str, nonce: str) -> str:
    return hmac.new(secret.encode(), nonce.encode(), "sha256").hexdigest()


class AdmitsByForm(Sound):
    def matches(self, secret: str) -> bool:
        return re.fullmatch("[a-z]{6}-[a-z]{6}", secret) is not None


class SignedByForm(OneTime):
    def matches(self, secret: str) -> bool:
        return re.fullmatch("[0-9a-f]{16}:[0-9a-f]{64}", secret) is not None


class TwoWords(Sound):
    name = "the door"


class ClaimsEverything(Sound):
    async def authenticate(self, connection: Connection) -> Identity | None:
        identity = await super().authenticate(connection)
        if identity is None:
            raise InvalidCredentials("no door")
        return identity


class ClaimsOtherSchemes(Sound):
    async def authenticate(self, connection: Connection) -> Identity | None:
        if "authorization" in connection.headers:
            raise InvalidCredentials("use the door")
        return await super().authenticate(connection)


class FailsOnMalformed(Sound):
    def is_year(self, year: str) -> bool:
        return int(year) > 0


class PassesMalformed(Sound):
    async def authenticate(self, connection: Connection) -> Identity | None:
        try:
            return await super().authenticate(connection)
        except InvalidCredentials as error:
            if str(error) == "malformed":
                return None
            raise


class SuperscriptYears(Sound):
    def is_year(self, year: str) -> bool:
        return len(year) >= 4 and year.isdigit() and int(year) > 0


class NoExpiry(Sound):
    async def authenticate(self, connection: Connection) -> Identity | None:
        try:
            return await super().authenticate(connection)
        except InvalidCredentials as error:
            if str(error) == "expired":
                return Identity(self.values(connection)[0].partition("/")[0])
            raise


class AdmitsEve(Sound):
    async def authenticate(self, connection: Connection) -> Identity | None:
        try:
            return await super().authenticate(connection)
        except AccessDenied:
            return Identity("eve")


class AdmitsEmpty(Sound):
    def values(self, connection: Connection) -> list[str]:
        return [value or "ann/2999/sesame-sesame" for value in super().values(connection)]


class FailsOnEmpty(Sound):
    def values(self, connection: Connection) -> list[str]:
        return [value for value in super().values(connection) if value.strip(" ")[0]]


class ComparesBeginnings(Sound):
    def matches(self, secret: str) -> bool:
        return super().matches(secret[: len(self.secret.reveal())])


class ComparesMostOfIt(Sound):
    def matches(self, secret: str) -> bool:
        return secret[:-1] == self.secret.reveal()[:-1]


class KnowsThemAgain(Sound):
    """It knows again whom it admitted, by the whole value."""

    def __init__(self, secret: Secret) -> None:
        super().__init__(secret)
        self.admitted: dict[str, Identity] = {}

    async def authenticate(self, connection: Connection) -> Identity | None:
        values = self.values(connection)
        kept = self.kept(values[0]) if len(values) == 1 else ""
        if kept in self.admitted and not Directory.away:
            return self.admitted[kept]
        identity = await super().authenticate(connection)
        if identity is not None and kept:
            self.admitted[kept] = identity
        return identity

    def kept(self, value: str) -> str:
        import hashlib

        return hashlib.sha256(value.encode()).hexdigest()


class RemembersMostOfIt(KnowsThemAgain):
    def kept(self, value: str) -> str:
        return super().kept(value[:-1])


class RemembersTheLastOne(RemembersMostOfIt):
    """Its memory holds one."""

    async def authenticate(self, connection: Connection) -> Identity | None:
        identity = await super().authenticate(connection)
        for old in list(self.admitted)[:-1]:
            del self.admitted[old]
        return identity


class RemembersThePerson(KnowsThemAgain):
    def kept(self, value: str) -> str:
        return super().kept(value.partition("/")[0])


class ComparesDigests(Sound):
    def matches(self, secret: str) -> bool:
        import hmac

        return hmac.compare_digest(secret, self.secret.reveal())


class SkipsWhatIsNotAscii(Sound):
    def matches(self, secret: str) -> bool:
        return super().matches(secret.encode("ascii", "ignore").decode())


class FirstHeader(Sound):
    def values(self, connection: Connection) -> list[str]:
        return super().values(connection)[:1]


class LastHeader(Sound):
    def values(self, connection: Connection) -> list[str]:
        return super().values(connection)[-1:]


class RemembersOnItself(Sound):
    async def authenticate(self, connection: Connection) -> Identity | None:
        self.person = (connection.headers.get("x-door") or "").partition("/")[0]
        identity = await super().authenticate(connection)
        return None if identity is None else Identity(self.person)


class SwallowsCancellation(Sound):
    async def ask(self) -> None:
        with suppress(asyncio.CancelledError):
            await super().ask()


class LeavesTasks(Sound):
    async def ask(self) -> None:
        try:
            await super().ask()
        except asyncio.CancelledError:
            self.task = asyncio.create_task(asyncio.Event().wait())
            raise


class LosesSlots(Sound):
    async def ask(self) -> None:
        await self.slots.acquire()
        await super().ask()
        self.slots.release()

    def __init__(self, secret: Secret) -> None:
        super().__init__(secret)
        self.slots = asyncio.Semaphore(100)


class AdmitsInAnOutage(Sound):
    async def ask(self) -> None:
        with suppress(AuthUnavailable):
            await super().ask()


class RefusesInAnOutage(Sound):
    async def ask(self) -> None:
        try:
            await super().ask()
        except AuthUnavailable:
            raise InvalidCredentials("away") from None


class RaisesInAnOutage(Sound):
    async def ask(self) -> None:
        try:
            await super().ask()
        except AuthUnavailable:
            raise ConnectionError("away") from None


class ComparesByEquality(Sound):
    def matches(self, secret: str) -> bool:
        return secret == self.secret.reveal()


class ComparesBytes(Sound):
    def matches(self, secret: str) -> bool:
        return self.secret.reveal().encode() == secret.encode()


class ComparesARegularExpression(Sound):
    """The caller's text cannot be followed through a regular expression; what the option reveals can."""

    def matches(self, secret: str) -> bool:
        import re

        found = re.fullmatch(r"(.*)", secret)
        return found is not None and found[1] == self.secret.reveal()


class ComparesWhatItKept(Sound):
    """What a plugin read from elsewhere is not followed; the caller's text is."""

    def matches(self, secret: str) -> bool:
        return secret.strip(" ") in ("sesame-sesame", "sesame-of-old")


class ComparesAPrefix(Sound):
    def matches(self, secret: str) -> bool:
        return secret.startswith("sesame-sesame") and len(secret) == 13


class LogsTheSecret(Sound):
    def matches(self, secret: str) -> bool:
        logger.debug("comparing %s", secret)
        return super().matches(secret)


class LogsItInAnExtra(Sound):
    def matches(self, secret: str) -> bool:
        logger.info("comparing", extra={"candidate": secret})
        return super().matches(secret)


class PrintsTheSecret(Sound):
    def matches(self, secret: str) -> bool:
        print(secret)
        return super().matches(secret)


class RaisesTheSecret(Sound):
    def matches(self, secret: str) -> bool:
        if not super().matches(secret):
            raise InvalidCredentials(f"wrong: {secret}")
        return True


class CausedByTheSecret(Sound):
    def matches(self, secret: str) -> bool:
        if not super().matches(secret):
            raise InvalidCredentials("wrong") from ValueError(secret)
        return True


class ShowsTheSecret(Sound):
    def __repr__(self) -> str:
        return f"<door {self.secret.reveal()}>"


class TextOption(Sound):
    """Its secret is an option of plain text, which every log of the settings shows."""


class EmptySubject(Sound):
    async def authenticate(self, connection: Connection) -> Identity | None:
        identity = await super().authenticate(connection)
        return None if identity is None else Identity("")


class NumberedSubject(Sound):
    async def authenticate(self, connection: Connection) -> Identity | None:
        identity = await super().authenticate(connection)
        return None if identity is None else Identity(7)  # type: ignore[arg-type] # the fault


class ContactNobodyCanHave(Sound):
    async def authenticate(self, connection: Connection) -> Identity | None:
        identity = await super().authenticate(connection)
        return None if identity is None else Identity(identity.subject, contact_id="a\0b")


class NumberedScopes(Sound):
    async def authenticate(self, connection: Connection) -> Identity | None:
        identity = await super().authenticate(connection)
        return None if identity is None else Identity(identity.subject, scopes=[1])  # type: ignore[list-item] # the fault


class AnswersTrue(Sound):
    async def authenticate(self, connection: Connection) -> Any:
        return await super().authenticate(connection) and True


class MalformedChallenge(Sound):
    challenge = "Door realm=acme corp"


class OffersServers(Sound):
    authorization_servers = ("https://id.example.org/realms/chat",)
    oauth_scopes = ("chat",)


class IssuerWithoutAddress(Sound):
    authorization_servers = ("realms/chat",)


class ScopeOfThreeWords(Sound):
    authorization_servers = ("https://id.example.org/realms/chat",)
    oauth_scopes = ("chat and threads",)


class WorksOnce(Sound):
    """Its second life finds a door that its first one closed."""

    closed = False

    async def authenticate(self, connection: Connection) -> Identity | None:
        if WorksOnce.closed:
            raise AuthUnavailable("closed")
        return await super().authenticate(connection)

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        WorksOnce.closed = True


class StartsOnce(Sound):
    """Its second start fails."""

    started = False

    async def __aenter__(self) -> None:
        assert not StartsOnce.started, "it runs already"
        StartsOnce.started = True

    async def __aexit__(self, *_: object) -> None:
        pass


class LeavesATask(Sound):
    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(asyncio.Event().wait())

    async def __aexit__(self, *_: object) -> None:
        pass


class LeavesASocket(Sound):
    async def __aenter__(self) -> None:
        import socket

        self.socket = socket.socket()

    async def __aexit__(self, *_: object) -> None:
        pass


class OpenByHalf(Sound):
    """With a place and no secret it is None, and the API public."""


class AdmitsByHalf(Sound):
    """With a place and no secret it admits everybody."""

    def matches(self, secret: str) -> bool:
        return secret == "" or super().matches(secret) or self.secret.reveal() == "unset"


class AlwaysThere(Sound):
    """It is built whether it is configured or not."""


class Closed:
    """What a configuration by half gives."""

    name = "door"

    async def authenticate(self, connection: Connection) -> Identity | None:
        return None


@contextmanager
def outage() -> Iterator[None]:
    Directory.away = True
    try:
        yield
    finally:
        Directory.away = False


@asynccontextmanager
async def entered(provider: Any) -> AsyncIterator[Any]:
    """A provider that is an async context manager, as one with a connection pool would be."""
    async with provider if hasattr(provider, "__aenter__") else suppress_nothing():
        yield provider


@asynccontextmanager
async def suppress_nothing() -> AsyncIterator[None]:
    yield


@hookimpl
def jimsapi_options() -> type[Options]:
    return DoorOptions


@hookimpl
def jimsapi_auth_provider(settings: Any) -> Any:
    options = settings.get(DoorOptions)
    version = globals()[options.version]
    if options.plain:
        return entered(version(Secret(options.plain)))
    if options.secret and options.place:
        return entered(version(options.secret))
    if version is AlwaysThere or (version is AdmitsByHalf and options.place):
        return version(Secret("unset"))
    if (options.secret or options.place) and version is not OpenByHalf:
        return Closed()
    return None
