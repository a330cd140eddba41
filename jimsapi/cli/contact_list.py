"""`jimsapi contacts list`: the contacts that have threads."""

import click

from jimsapi.api.contacts import contact_item
from jimsapi.cli.opened_store import complete, opened
from jimsapi.cli.printing import print_json, print_row
from jimsapi.plugins.compose import Configuration

CONTACTS_AT_ONCE = 100
COLUMNS = ("THREADS", "ACTIVE", "CONTACT")
WIDTHS = (8, 20, 0)


def list_contacts(configuration: Configuration, *, limit: int, as_json: bool) -> None:
    """Print the contacts. Raises `StartError` or `StoreUnusable` if that is not possible."""
    complete(_list(configuration, limit, as_json))


async def _list(configuration: Configuration, limit: int, as_json: bool) -> None:
    async with opened(configuration, to_write=False) as service:
        left, after = limit, None
        while left:
            page = await service.store.contacts(None, min(left, CONTACTS_AT_ONCE), after)
            if page.contacts and left == limit and not as_json:
                print_row(COLUMNS, WIDTHS)
            for contact in page.contacts:
                if as_json:
                    print_json(contact_item(contact))
                else:
                    print_row((contact.threads, contact.active_at, contact.contact_id), WIDTHS)
            left, after = left - len(page.contacts), page.next
            if after is None:
                break
        if left == limit:
            click.echo(f"there are no contacts in {service.store.name}", err=True)
        elif after is not None:
            click.echo("there are more contacts; raise --limit to see them", err=True)
