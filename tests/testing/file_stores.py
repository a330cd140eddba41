"""A file store in many versions: one that keeps the contract, and some that each break one thing.

The tests install this module as the distribution `acme-crate`; the URL `crate:Version` chooses.
"""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Self

from jimsapi import Options, hookimpl, option
from jimsapi.threads import (
    ContactDeleted,
    FilePage,
    FileQuotaExceeded,
    NewFile,
    StoredFile,
    StoredFileNotFound,
    decode_cursor,
    encode_cursor,
)

PLACE: dict[str, tuple[StoredFile, bytes]] = {}
"""What all stores of the process have kept. The test module empties it before each case."""


class CrateOptions(Options, prefix="crate"):
    breaks_routes: bool = option(help="The hook of the routes raises.")


class Sound:
    """Keeps files in `PLACE`."""

    def __init__(self) -> None:
        self.name = "crate"
        self.receiving: dict[object, tuple[str, int]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def put(self, new: NewFile, content: AsyncIterator[bytes], quota: int) -> StoredFile:
        room = quota - self.used(new.contact_id)
        reserved = self.reserve(new, room)
        if reserved > room or room <= 0:
            raise FileQuotaExceeded(quota)
        token = object()
        self.receiving[token] = (new.contact_id, reserved)
        try:
            data = await self.receive(content, reserved, quota)
            self.check_contact(token)
            return self.keep(new, data)
        finally:
            self.receiving.pop(token, None)

    def reserve(self, new: NewFile, room: int) -> int:
        return min(new.limit, max(room, 0)) if new.size is None else new.size

    async def receive(self, content: AsyncIterator[bytes], reserved: int, quota: int) -> bytes:
        data = bytearray()
        async for piece in content:
            data += piece
            if len(data) > reserved:
                raise FileQuotaExceeded(quota)
        return bytes(data)

    def check_contact(self, token: object) -> None:
        if token not in self.receiving:
            raise ContactDeleted

    def keep(self, new: NewFile, data: bytes) -> StoredFile:
        same = (new.contact_id, new.name, new.type, data)
        for file, kept in PLACE.values():
            if (file.contact_id, file.name, file.type, kept) == same:
                return file
        return self.add(self.new_id(new), new, data)

    def add(self, file_id: str, new: NewFile, data: bytes) -> StoredFile:
        file = StoredFile(
            file_id=file_id,
            contact_id=new.contact_id,
            name=new.name,
            type=new.type,
            size=len(data),
            created_at=datetime.now(UTC),
        )
        PLACE[file_id] = (file, data)
        return file

    def new_id(self, new: NewFile) -> str:
        return secrets.token_urlsafe(24)

    def used(self, contact_id: str) -> int:
        sizes = [(file.contact_id, file.size) for file, _ in PLACE.values()]
        return sum(size for owner, size in (*sizes, *self.receiving.values()) if owner == contact_id)

    async def find(self, file_id: str, acting_for: str | None) -> StoredFile:
        if file_id not in PLACE or acting_for not in (None, PLACE[file_id][0].contact_id):
            raise StoredFileNotFound
        return PLACE[file_id][0]

    async def read(self, file: StoredFile, begin: int, end: int) -> AsyncIterator[bytes]:
        if file.file_id not in PLACE:
            raise StoredFileNotFound
        return once(PLACE[file.file_id][1][begin:end])

    async def files(self, contact_id: str, limit: int, after: str | None) -> FilePage:
        [last] = [""] if after is None else decode_cursor(after, 1)
        found = sorted(key for key, (file, _) in PLACE.items() if file.contact_id == contact_id and key > last)
        page = [PLACE[key][0] for key in found[:limit]]
        return FilePage(page, encode_cursor(found[limit - 1]) if len(found) > limit else None)

    async def delete(self, file: StoredFile) -> None:
        if PLACE.pop(file.file_id, None) is None:
            raise StoredFileNotFound

    async def delete_contact(self, contact_id: str) -> None:
        for key in [key for key, (file, _) in PLACE.items() if file.contact_id == contact_id]:
            del PLACE[key]
        self.receiving = {token: pair for token, pair in self.receiving.items() if pair[0] != contact_id}


async def once(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


class Nameless(Sound):
    async def __aenter__(self) -> Self:
        self.name = ""
        return self


class Forgets(Sound):
    async def __aexit__(self, *_: object) -> None:
        PLACE.clear()


class ForgetsTheName(Sound):
    def add(self, file_id: str, new: NewFile, data: bytes) -> StoredFile:
        nameless = NewFile(contact_id=new.contact_id, name="", type=new.type, size=new.size, limit=new.limit)
        return super().add(file_id, nameless, data)


class RefusesTheEmpty(Sound):
    async def receive(self, content: AsyncIterator[bytes], reserved: int, quota: int) -> bytes:
        data = await super().receive(content, reserved, quota)
        assert data, "there is nothing to store"
        return data


class ReadsToTheEnd(Sound):
    async def read(self, file: StoredFile, begin: int, end: int) -> AsyncIterator[bytes]:
        return await super().read(file, begin, file.size)


class EndsAtAnEmptyPiece(Sound):
    async def receive(self, content: AsyncIterator[bytes], reserved: int, quota: int) -> bytes:
        data = b""
        async for piece in content:
            if not piece:
                break
            data += piece
        return data


class StripsNames(Sound):
    def add(self, file_id: str, new: NewFile, data: bytes) -> StoredFile:
        name = new.name.rpartition("/")[2]
        stripped = NewFile(contact_id=new.contact_id, name=name, type=new.type, size=new.size, limit=new.limit)
        return super().add(file_id, stripped, data)


class StoresEachTime(Sound):
    def keep(self, new: NewFile, data: bytes) -> StoredFile:
        return self.add(self.new_id(new), new, data)


class NamesTheContact(Sound):
    def new_id(self, new: NewFile) -> str:
        return f"{new.contact_id}:{super().new_id(new)}"


class ShowsAll(Sound):
    async def find(self, file_id: str, acting_for: str | None) -> StoredFile:
        return await super().find(file_id, None)


class FindsByTheBeginning(Sound):
    async def find(self, file_id: str, acting_for: str | None) -> StoredFile:
        return await super().find(next((key for key in PLACE if key.startswith(file_id)), ""), acting_for)


class HasOnePage(Sound):
    async def files(self, contact_id: str, limit: int, after: str | None) -> FilePage:
        page = await super().files(contact_id, limit, after)
        return FilePage(page.files, None)


class AcceptsEveryCursor(Sound):
    async def files(self, contact_id: str, limit: int, after: str | None) -> FilePage:
        try:
            return await super().files(contact_id, limit, after)
        except Exception:
            return FilePage([], None)


class ReadsBeforeItRefuses(Sound):
    def reserve(self, new: NewFile, room: int) -> int:
        return min(new.limit, max(room, 0))


class TrustsUnknownLengths(Sound):
    async def receive(self, content: AsyncIterator[bytes], reserved: int, quota: int) -> bytes:
        return b"".join([piece async for piece in content])


class KeepsTheSizes(Sound):
    """What a contact has deleted still counts."""

    gone = 0

    def used(self, contact_id: str) -> int:
        return super().used(contact_id) + self.gone

    async def delete(self, file: StoredFile) -> None:
        await super().delete(file)
        self.gone += file.size


class CountsEachTime(Sound):
    """A file that is there already counts once more."""

    again = 0

    def used(self, contact_id: str) -> int:
        return super().used(contact_id) + self.again

    def keep(self, new: NewFile, data: bytes) -> StoredFile:
        before = len(PLACE)
        file = super().keep(new, data)
        self.again += file.size if len(PLACE) == before else 0
        return file


class CountsAtTheEnd(Sound):
    def reserve(self, new: NewFile, room: int) -> int:
        self.receiving.clear()
        return super().reserve(new, room)

    def check_contact(self, token: object) -> None:
        pass


class KeepsHalf(Sound):
    async def receive(self, content: AsyncIterator[bytes], reserved: int, quota: int) -> bytes:
        data = b""
        try:
            async for piece in content:
                data += piece
        except ConnectionError:
            self.add("half", NewFile(contact_id="ann", name="a", type="a/b", size=1, limit=1), data)
            raise
        return data


class KeepsReservations(Sound):
    """A cancelled upload counts for ever."""

    async def receive(self, content: AsyncIterator[bytes], reserved: int, quota: int) -> bytes:
        try:
            return await super().receive(content, reserved, quota)
        except Exception:
            raise
        except BaseException:
            self.receiving[object()] = ("ann", reserved)
            raise


class DeletesTwice(Sound):
    async def delete(self, file: StoredFile) -> None:
        PLACE.pop(file.file_id, None)


class DeletesAll(Sound):
    async def delete_contact(self, contact_id: str) -> None:
        await super().delete_contact(contact_id)
        PLACE.clear()


class StoresForTheDeleted(Sound):
    def check_contact(self, token: object) -> None:
        pass


VERSIONS: dict[str, type[Sound]] = {
    name: value for name, value in list(globals().items()) if isinstance(value, type) and issubclass(value, Sound)
}


@hookimpl
def jimsapi_options() -> type[Options]:
    return CrateOptions


@hookimpl
def jimsapi_file_store(url: str) -> Any:
    return VERSIONS[url.removeprefix("crate:")]() if url.startswith("crate:") else None


@hookimpl
def jimsapi_routes(settings: Any) -> None:
    if settings.get(CrateOptions).breaks_routes:
        raise RuntimeError("on purpose")
