"""The file store of one app, with its limits. All hooks of the plugin share it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, cast

from jimsapi.plugins import CoreOptions, FileStore, Settings, StartError, ThreadStore, build_file_store
from jimsapi.threads import InputRefused, NewFile, SentFile, StoredFile
from jimsapi_files import FilesOptions
from jimsapi_files.deletion import DeletesFiles
from jimsapi_files.media_types import essence, is_pattern, matches
from jimsapi_files.names import InvalidName, checked_name


class Files:
    """The file store of one app. It is open while this object is entered.

    - `store`: the file store.
    - `max_size`: the number of bytes that a file may have.
    - `quota`: the number of bytes that all files of a contact may have together.
    - `types`: patterns of the media types that files may have.
    - `origins`: the web origins whose pages may upload files, besides those of this host.
    - `received`, `received_bytes`: how many files were stored since the start, and how many bytes they have.

    Raises `StartError` if the options are invalid.
    """

    def __init__(self, settings: Settings) -> None:
        options = settings.get(FilesOptions)
        self.store: FileStore = build_file_store(cast(str, options.store), "--files-store", settings)
        self.max_size = options.max_size
        self.quota = options.quota
        self.types = options.types
        for pattern in self.types:
            if not is_pattern(pattern):
                raise StartError(f"--files-types: {pattern!r} is not a media type; give image/png, image/* or */*")
        self.origins = tuple(settings.get(CoreOptions).cors_origin)
        self.received = 0
        self.received_bytes = 0
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> None:
        opened = await self._opened.enter_async_context(self.store)
        self.store = self.store if opened is None else opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    def preflight(self) -> str | None:
        """Return what entering this would create; None if the file store exists, or if it cannot know that."""
        preflight = getattr(self.store, "preflight", None)
        missing: str | None = None if preflight is None else preflight()
        return missing

    def __call__(self, store: ThreadStore) -> ThreadStore:
        """Return a store of threads that deletes the files of a contact too. This is the plugin's store wrapper."""
        wrapped: Any = DeletesFiles(store, self)
        return cast(ThreadStore, wrapped)

    def check(self, file: SentFile) -> SentFile:
        """Return a file that came within a message as it is stored. Raises `InputRefused` if it is not accepted."""
        try:
            name = checked_name(file.name)
        except InvalidName as error:
            raise InputRefused("files", "invalid_name", f"This cannot be the name of a file: {error}", None) from None
        kind = essence(file.type)
        if kind is None or not matches(kind, self.types):
            accepted = ", ".join(self.types)
            message = f"Files of the type {file.type[:100]} are not accepted; accepted are: {accepted}"
            raise InputRefused("files", "invalid_type", message, None)
        if len(file.content) > self.max_size:
            raise InputRefused("files", "too_large", f"A file may have at most {self.max_size} bytes", None)
        return SentFile(name, kind, file.content)

    async def keep(self, contact_id: str, file: SentFile) -> StoredFile:
        """Store a file that `check` has returned. Raises as `FileStore.put` does."""
        size = len(file.content)
        new = NewFile(contact_id=contact_id, name=file.name, type=file.type, size=size, limit=self.max_size)
        stored = await self.store.put(new, _one_piece(file.content), self.quota)
        self.count(stored.size)
        return stored

    def count(self, size: int) -> None:
        """Count a stored file of `size` bytes for the metrics."""
        self.received += 1
        self.received_bytes += size


async def _one_piece(content: bytes) -> AsyncIterator[bytes]:
    yield content
