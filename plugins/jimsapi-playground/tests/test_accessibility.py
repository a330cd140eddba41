"""The page by keys alone, and in the eyes of axe: light and dark, on a desktop and on a phone. It draws the pictures of
the documentation, too."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from person import DESKTOP, PHONE, Person, person_at

from tests.clients.chromium import Chromium, Page, Screen
from tests.node import install
from tests.serving import Served

TESTS = Path(__file__).parent
SCREENS = {
    "desktop-light": DESKTOP,
    "desktop-dark": DESKTOP._replace(dark=True),
    "phone-light": PHONE,
    "phone-dark": PHONE._replace(dark=True),
}
MOST = 150_000


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe."""
    install(TESTS)
    return (TESTS / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def violations(axe: str) -> Callable[[Page], list[str]]:
    """Returns what axe finds on a page. Its own script is let past the policy of the page."""

    def find(page: Page) -> list[str]:
        page.evaluate(f"{axe}; null")
        found: list[dict[str, Any]] = page.evaluate("axe.run().then(found => found.violations)")
        return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in found for node in one["nodes"]]

    return find


def show_everything(person: Person) -> None:
    """Open an answer's timeline with what is folded in it, its command, a form and a question."""
    person.ask("tell me where Quokkas live", "Rottnest Island")
    person.page.evaluate("document.querySelectorAll('.turn details').forEach(one => { one.open = true; })")
    person.page.until("document.querySelector('.timeline .code.json .t-key')")
    person.click("Good answer")
    person.page.until("document.querySelector('[aria-pressed=true]')")
    person.say("form please")
    person.page.until("document.querySelector('.question form')")
    person.page.until("document.querySelector('aside li')")


@pytest.mark.parametrize("screen", SCREENS.values(), ids=SCREENS)
def test_the_page_has_no_violation(
    browser: Chromium, site: Served, contact: str, screen: Screen, violations: Callable[[Page], list[str]]
) -> None:
    with person_at(browser, site.url, screen, contact) as person:
        person.page.call("Page.setBypassCSP", enabled=True)
        person.page.load()
        person.page.until("document.querySelector('#message')")
        assert violations(person.page) == []
        show_everything(person)
        if screen.width < 600:
            person.click("Conversations")
        assert violations(person.page) == []
        person.click("Edit", ".turn:first-of-type")
        person.page.until("document.querySelector('.said form')")
        assert violations(person.page) == []
        person.click("Raw log")
        person.page.until("document.querySelector('.log details')")
        person.page.evaluate("document.querySelectorAll('.log details').forEach(one => { one.open = true; })")
        person.page.until("document.querySelector('.log .t-key')")
        assert violations(person.page) == []


@pytest.mark.parametrize("screen", SCREENS.values(), ids=SCREENS)
def test_the_pages_for_operators_have_no_violation_and_fit(
    browser: Chromium, site: Served, contact: str, screen: Screen, violations: Callable[[Page], list[str]]
) -> None:
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    with person_at(browser, site.url, screen, contact) as person:
        person.page.call("Page.setBypassCSP", enabled=True)
        person.page.load()
        person.ask("fail", "The run failed")
        person.click("Delete", ".bar")
        person.page.until("document.querySelector('dialog[open]')")
        assert violations(person.page) == []
        person.click("Keep it", "dialog")
        for place in ("Contacts", "Runs"):
            person.click(place, "header")
            person.page.until("document.querySelector('.rows li')")
            assert violations(person.page) == []
            assert person.page.evaluate(fits)
        person.click("Details", ".rows")
        person.page.until("document.querySelector('.rows .code')")
        assert violations(person.page) == []
        assert person.page.evaluate(fits)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_form_for_the_key_has_no_violation(
    browser: Chromium, guarded: Served, dark: bool, violations: Callable[[Page], list[str]]
) -> None:
    with person_at(browser, guarded.url, DESKTOP._replace(dark=dark)) as person:
        person.page.call("Page.setBypassCSP", enabled=True)
        person.page.load()
        person.page.until("document.activeElement.id === 'key'")
        person.page.write("wrong")
        person.page.press("Enter")
        person.page.until("document.querySelector('.problem')")
        assert violations(person.page) == []


@pytest.mark.parametrize("screen", SCREENS.values(), ids=SCREENS)
def test_nothing_is_wider_than_the_screen(browser: Chromium, site: Served, contact: str, screen: Screen) -> None:
    with person_at(browser, site.url, screen, contact) as person:
        show_everything(person)
        assert person.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_person_uses_the_page_by_keys_alone(person: Person) -> None:
    page = person.page
    page.until("document.activeElement.id === 'message'")
    reach(page, "Go to the message field", back=True)
    page.press("Enter")
    page.until("document.activeElement.id === 'message'")
    page.write("tell")
    page.press("Enter", shift=True)
    page.write("me")
    assert page.evaluate("document.activeElement.value") == "tell\nme"
    page.evaluate("document.activeElement.select()")
    page.write("ask me")
    page.press("Enter")
    page.until("document.querySelector('.question')")
    reach(page, "yes", back=True)
    page.press(" ")
    person.sees("You chose yes.")
    reach(page, "Good answer", back=True)
    page.press("Enter")
    page.until("document.querySelector('[aria-pressed=true]')")


def reach(page: Page, name: str, *, back: bool = False) -> None:
    """Press Tab until an element with this text has the focus, and see that the focus shows."""
    for _ in range(60):
        if page.evaluate("document.activeElement.textContent") == name:
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            return
        page.press("Tab", shift=back)
    pytest.fail(f"Tab does not reach {name}")


def test_a_screen_reader_hears_of_statuses_and_of_the_whole_answer(person: Person, site: Served, contact: str) -> None:
    record = """
        window.heard = [];
        new MutationObserver(() => window.heard.push(document.querySelector("[role=status]").textContent))
            .observe(document.querySelector("[role=status]"), {childList: true, characterData: true, subtree: true});
    """
    person.page.evaluate(record)
    person.say(f"hold {contact}")
    person.page.until("window.heard.at(-1) === 'Waiting at the door'")
    with site.client() as client:
        client.post("/api/v1/chat", json={"contact_id": "door", "message": f"open {contact}"}).raise_for_status()
    person.page.until("window.heard.at(-1) === 'Answer: Wait, done'")
    assert set(person.page.evaluate("window.heard")) <= {"Sent", "Waiting at the door", "Answer: Wait, done"}


def test_a_screen_reader_hears_of_a_question_and_no_marks_of_markdown(person: Person) -> None:
    heard = "document.querySelector('[role=status]').textContent"
    person.say("ask me")
    person.page.until(f"{heard} === 'Question: Refund 20 EUR?'")
    person.say("tell me")
    person.page.until(f"{heard}.startsWith('Answer: ')")
    assert person.page.evaluate(heard).splitlines() == [
        "Answer: Quokkas live on Rottnest Island, and also on Bald Island:", "", "They weigh 2.5 to 5 kg.",
        "Read more at Wikipedia.", "", "island, animals", "Rottnest, 10000", "Bald, 600",
    ]  # fmt: skip
    person.page.until("document.querySelector('aside .preview')?.textContent.startsWith('Quokkas')")
    assert "**" not in person.texts("aside .preview")[0]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures go: `JIMSAPI_PICTURES=docs` draws those of the documentation anew."""
    return Path(os.environ.get("JIMSAPI_PICTURES") or tmp_path)


@pytest.mark.parametrize("name", SCREENS)
def test_the_pictures_of_the_documentation_show_the_page(
    browser: Chromium, site: Served, name: str, pictures: Path
) -> None:
    with site.client() as client:
        client.delete("/api/v1/contacts", params={"contact_id": "ann"}).raise_for_status()
    with person_at(browser, site.url, SCREENS[name], "ann") as person:
        person.ask("tell me where Quokkas live", "Rottnest Island")
        [summary] = person.texts(".timeline > summary")
        if SCREENS[name].width > 600:
            person.click(summary)
        person.page.evaluate("document.activeElement.blur(); document.querySelector('.conversation').scrollTop = 0")
        picture = person.page.picture()
    assert len(picture) < MOST
    (pictures / f"playground-{name}.png").write_bytes(picture)


DOCS = [Screen(1280, 900), Screen(1280, 900, dark=True), Screen(390, 844), Screen(390, 844, dark=True)]


@pytest.mark.parametrize("screen", DOCS, ids=str)
def test_the_page_of_the_documentation_has_no_violation(
    browser: Chromium, site: Served, screen: Screen, violations: Callable[[Page], list[str]]
) -> None:
    with browser.open(f"{site.url}/docs", screen) as page:
        page.call("Page.setBypassCSP", enabled=True)
        page.load()
        page.until("document.querySelector('details')")
        assert violations(page) == []
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.evaluate(f"document.querySelector({json.dumps('details button')}).click()")
        page.until("document.querySelector('pre:not([hidden])').textContent.length > 1")
        assert violations(page) == []
        assert page.faults == []
