"""A person who uses the page by its keys and buttons."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.clients.chromium import Chromium, Page, Screen

DESKTOP = Screen(1280, 900)
PHONE = Screen(390, 844)


class Person:
    """A person in front of an open page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def say(self, text: str) -> None:
        """Write a message and press Enter."""
        self.page.until("document.querySelector('#message')")
        self.page.evaluate("document.querySelector('#message').focus()")
        self.page.write(text)
        self.page.press("Enter")

    def paste(self, text: str) -> None:
        """Send a message that is too long to be written by keys."""
        self.page.until("document.querySelector('#message')")
        self.page.evaluate(
            f"(field => {{ field.value = {json.dumps(text)}; field.focus(); "
            "field.dispatchEvent(new Event('input', {bubbles: true})); })(document.querySelector('#message'))"
        )
        self.page.press("Enter")

    def ask(self, text: str, sees: str) -> None:
        """Say something, and wait for what the newest answer is then, at the end of its run."""
        self.say(text)
        self.sees(sees)

    def sees(self, text: str) -> None:
        """Wait until no run is open and the newest turn shows a text."""
        idle = "!document.querySelector('.status') && document.querySelector('.composer .primary')"
        newest = f"document.querySelector('.turn:last-of-type')?.innerText.includes({json.dumps(text)})"
        self.page.until(f"{idle} && {newest}")

    def click(self, name: str, within: str = "body") -> None:
        """Click the newest button, link or summary with this text."""
        selector = json.dumps(f":is({within}) :is(button, a, summary, label)")
        self.page.until(
            f"(found => found && !found.disabled && (found.click(), true))([...document.querySelectorAll({selector})]"
            f".findLast(one => one.textContent.trim() === {json.dumps(name)}))"
        )

    def texts(self, selector: str) -> list[str]:
        """The texts of the elements that a selector finds."""
        found: list[str] = self.page.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.innerText)"
        )
        return found


def enter_key(person: Person, key: str) -> None:
    """Enter a key into the page that asks for it, and wait for the chat."""
    person.page.until("document.activeElement.id === 'key'")
    person.page.write(key)
    person.page.press("Enter")
    person.page.until("document.querySelector('#message')")


def run_keys(file: Path, *arguments: str) -> str:
    """What `jimsapi keys` prints."""
    command = [sys.executable, "-m", "jimsapi", "keys", *arguments, "--keys-file", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def new_key(file: Path, name: str, *options: str) -> str:
    """Make a key, and return it."""
    return run_keys(file, "new", name, *options).strip()


@contextmanager
def person_at(browser: Chromium, url: str, screen: Screen = DESKTOP, contact: str = "") -> Iterator[Person]:
    """A person at the page, with a contact of its own. Fails if the page has had a fault, as a breach of its policy."""
    with browser.open(f"{url}/playground/icon.svg", screen) as page:
        page.evaluate(f"localStorage.setItem('jimsapi.playground.contact', {json.dumps(contact or 'ann')})")
        page.load(url)
        page.until("document.querySelector('#message, #key, .problem')")
        yield Person(page)
        assert page.faults == []
