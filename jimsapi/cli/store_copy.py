"""`jimsapi store copy`: copy everything of one store to another, and compare the two."""

import click
import msgspec

from jimsapi.cli.check import missing_store
from jimsapi.cli.opened_store import built_store, complete, require_methods
from jimsapi.cli.printing import print_row
from jimsapi.cli.progress import Progress
from jimsapi.plugins.compose import Configuration
from jimsapi.plugins.errors import StartError
from jimsapi.threads.copying import Contents, CopyRefused, copy_store
from jimsapi.threads.transfer import TRANSFER_METHODS, ThreadRefused

COLUMNS = ("", "FROM", "TO")
WIDTHS = (13, 32, 32)

_BESIDE_A_SERVER = "; a store cannot be copied, or be copied to, while a server uses it"


def copy(configuration: Configuration, *, source: str, target: str) -> None:
    """Copy a store, and print what both have. Raises `StartError` or `StoreUnusable` if that is not possible.

    It also raises `StartError` if the two are not equal afterwards.
    """
    complete(_copy(configuration, source, target), _BESIDE_A_SERVER)


async def _copy(configuration: Configuration, source: str, target: str) -> None:
    from_store, to_store = [await built_store(configuration, url) for url in (source, target)]
    if missing_store(from_store) is not None:
        raise StartError(f"there is no database {from_store.name}: name the store that has the threads first")
    if from_store.name == to_store.name:
        raise StartError(f"{from_store.name} is named twice: name two stores")
    require_methods(from_store.value, TRANSFER_METHODS)
    require_methods(to_store.value, TRANSFER_METHODS)
    try:
        async with from_store.value as original, to_store.value as copied:
            with Progress("threads") as progress:
                before, after = await copy_store(original, copied, progress.add_to)
    except (CopyRefused, ThreadRefused) as error:
        raise StartError(str(error)) from error
    _print(from_store.name, to_store.name, before, after)


def _print(from_name: str, to_name: str, before: Contents, after: Contents) -> None:
    click.echo(f"FROM  {from_name}")
    click.echo(f"TO    {to_name}")
    print_row(COLUMNS, WIDTHS)
    for name, count in msgspec.structs.asdict(before).items():
        other = getattr(after, name)
        texts = (f"{count:032x}", f"{other:032x}") if name == "digest" else (count, other)
        print_row((name.replace("_", " "), *texts), WIDTHS)
    if before != after:
        raise StartError(
            "the stores are not equal: another program has used one of them meanwhile; stop it, and copy to an empty "
            "database"
        )
    click.echo("The stores are equal.")
