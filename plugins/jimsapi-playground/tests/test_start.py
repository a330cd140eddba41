"""What the page finds out about the server when it opens."""

from pathlib import Path

import pytest
from person import Person, enter_key, new_key, person_at

from tests.clients.chromium import Chromium
from tests.serving import Served


def refused(person: Person) -> list[str]:
    """The paths of the requests that the server has refused since the page was loaded, each with its status."""
    found: list[str] = person.page.evaluate(
        "performance.getEntriesByType('resource').filter(one => one.responseStatus >= 400)"
        ".map(one => `${one.responseStatus} ${new URL(one.name).pathname}`)"
    )
    return found


def test_nothing_is_refused_when_the_page_opens(person: Person) -> None:
    person.page.until("document.querySelector('input[type=file]')")
    person.page.until("document.querySelector('aside .note')")
    assert refused(person) == []
    person.ask("one", "You said one")
    assert refused(person) == []


def test_a_server_without_files_is_not_asked_for_them(browser: Chromium, contact: str) -> None:
    with (
        Served("--app", "showing:app", "--without-plugin", "files", folder=Path(__file__).parent) as server,
        person_at(browser, server.url, contact=contact) as person,
    ):
        person.ask("one", "You said one")
        assert refused(person) == []
        assert person.texts("input[type=file]") == []


def test_the_page_asks_for_a_key_after_one_refusal(operator: Person, contact: str) -> None:
    operator.page.until("document.querySelector('#contact')")
    operator.ask("one", "You said one")
    assert refused(operator) == ["401 /api/v1/threads"]


@pytest.mark.parametrize("docs", ["public", "private", "off"])
def test_a_key_of_one_contact_works_whoever_may_read_the_documentation(
    browser: Chromium, tmp_path: Path, contact: str, docs: str
) -> None:
    keys = tmp_path / "keys.json"
    key = new_key(keys, "website", "--contact", contact)
    files = f"file://{tmp_path}/files"
    options = ("--app", "showing:app", "--keys-file", str(keys), "--docs", docs, "--files-store", files)
    with (
        Served(*options, folder=Path(__file__).parent) as server,
        person_at(browser, server.url) as person,
    ):
        enter_key(person, key)
        person.ask("one", "You said one")
        person.page.until("document.querySelector('aside li') && document.querySelector('input[type=file]')")
        assert person.texts("#contact") == []
