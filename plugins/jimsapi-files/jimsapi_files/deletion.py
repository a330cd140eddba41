"""Deletes the files of a contact together with its threads."""

import logging
from inspect import ismethod
from typing import Any, Protocol
from uuid import UUID

from jimsapi.plugins import FileStore
from jimsapi.threads import StoreUnavailable, ThreadStore

logger = logging.getLogger("jimsapi.files")


class HasFiles(Protocol):
    """Has a file store, which may be another one after it was opened."""

    store: FileStore


class DeletesFiles:
    """A store of threads that deletes the files of a contact too. All other calls go to the wrapped store."""

    def __init__(self, store: ThreadStore, files: HasFiles) -> None:
        self._store = store
        self._files = files

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if ismethod(found):
            setattr(self, name, found)  # Python asks no more, which every chat would wait for three times
        return found

    async def delete_contact(self, contact_id: str) -> list[UUID]:
        """Delete the files of a contact, then its threads. Returns the runs that were open.

        The files come first. If they cannot be deleted, this raises `StoreUnavailable` and the threads are still there,
        so the caller knows that it has to repeat the call. In the other order, the runs that have to be stopped would
        be lost with the exception.

        Then the files are deleted again: those that pipelines have saved while the threads were still there.
        """
        try:
            await self._files.store.delete_contact(contact_id)
        except StoreUnavailable as error:
            raise StoreUnavailable(str(error)) from error  # its `reason` would be that of the store of threads
        open_runs = await self._store.delete_contact(contact_id)
        try:
            await self._files.store.delete_contact(contact_id)
        except StoreUnavailable as error:
            logger.error("files that a pipeline saved while its contact was deleted may remain: %s", error)
        return open_runs
