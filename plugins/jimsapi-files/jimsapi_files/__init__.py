"""Files of contacts: routes that store, read and delete them, and a store that keeps them in a folder.

This module has the options and the hooks. They import the rest of the package only if `--files-store` is set.
"""

from typing import TYPE_CHECKING

from jimsapi import Options, Router, hookimpl, option
from jimsapi.plugins import FileStore, Settings
from jimsapi.runs import RunService

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from jimsapi_files.service import Files


class FilesOptions(Options, prefix="files"):
    """Options of /api/v1/files."""

    store: str | None = option(help="Where files are stored: file:///folder, or a plugin's URL. Without it: nowhere.")
    max_size: int = option(
        20_971_520, minimum=1, maximum=1_099_511_627_776, help="Bytes that a file may have; larger ones get 413."
    )
    quota: int = option(
        1_073_741_824, minimum=1, help="Bytes that the files of one contact may have together; more than that gets 507."
    )
    types: tuple[str, ...] = option(
        ("*/*",), help="A media type that files may have, as image/png or image/*; files of other types get 415."
    )


@hookimpl
def jimsapi_options() -> type[Options]:
    return FilesOptions


@hookimpl
def jimsapi_file_store(url: str) -> FileStore | None:
    if not url.startswith("file:"):
        return None
    from jimsapi_files.folder import FolderStore, path_of

    return FolderStore(path_of(url))


@hookimpl
def jimsapi_routes(router: Router, service: RunService, settings: Settings) -> "Files | None":
    files = _files(settings)
    if files is not None:
        from jimsapi_files.routes import add_routes

        add_routes(router, service, files)
        service.use_files(files)
    return files


@hookimpl
def jimsapi_store_wrapper(settings: Settings) -> "Files | None":
    """Wrap the store of threads, so that the files of a contact are deleted together with its threads."""
    return _files(settings)


@hookimpl
def jimsapi_metrics(registry: "CollectorRegistry", settings: Settings) -> None:
    files = _files(settings)
    if files is not None:
        from jimsapi_files.metrics import FilesCollector

        registry.register(FilesCollector(files))


def _files(settings: Settings) -> "Files | None":
    """Return the object that all hooks of one app share; None if `--files-store` is not set."""
    if settings.get(FilesOptions).store is None:
        return None
    from jimsapi_files.service import Files

    return settings.shared(Files)
