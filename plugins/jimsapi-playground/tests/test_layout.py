"""What stays in reach while a conversation is longer than the screen."""

import pytest
from person import DESKTOP, PHONE, Person, person_at

from tests.clients.chromium import Chromium, Screen
from tests.serving import Served

LONG = "one\n" * 200
AT_END = (
    "(one => one.scrollHeight > 2 * one.clientHeight && one.scrollHeight - one.scrollTop - one.clientHeight < 5)"
    "(document.querySelector('.conversation'))"
)


def in_view(person: Person, selector: str) -> bool:
    """Whether an element is on the screen, and nothing is in front of it."""
    shown: bool = person.page.evaluate(
        "(one => { const {left, top, width, height} = one.getBoundingClientRect(); "
        "const front = document.elementFromPoint(left + width / 2, top + height / 2); "
        f"return front !== null && one.contains(front); }})(document.querySelector('{selector}'))"
    )
    return shown


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_header_the_list_and_the_message_field_stay_while_a_long_conversation_scrolls(
    browser: Chromium, site: Served, contact: str, screen: Screen
) -> None:
    with person_at(browser, site.url, screen, contact) as person:
        person.paste(LONG)
        person.sees("You said")
        person.page.until(AT_END)
        controls = ["header h1", "header nav a", ".bar .tools button", "#message", ".composer .primary"]
        if screen is PHONE:
            person.click("Conversations")
            person.page.until("document.querySelector('aside.open')")
        for top in ("0", "document.querySelector('.conversation').scrollHeight"):
            person.page.evaluate(f"document.querySelector('.conversation').scrollTop = {top}")
            for control in [*controls, "#contact", "aside a.button", "#search"]:
                assert in_view(person, control), control
            assert person.page.evaluate("document.scrollingElement.scrollTop") == 0


def test_page_up_in_the_message_field_scrolls_the_conversation(person: Person) -> None:
    person.paste(LONG)
    person.sees("You said")
    person.page.until(AT_END)
    person.page.press("PageUp")
    person.page.until(f"!{AT_END} && document.activeElement.id === 'message'")


def test_the_page_itself_scrolls_on_a_low_screen(browser: Chromium, site: Served, contact: str) -> None:
    with person_at(browser, site.url, Screen(800, 320), contact) as person:
        person.paste(LONG)
        person.sees("You said")
        place = "document.scrollingElement"
        person.page.until(f"{place}.scrollHeight > 2000 && {place}.scrollTop > {place}.scrollHeight - 325")


def test_the_end_of_a_run_does_not_move_what_a_person_reads(person: Person, site: Served, contact: str) -> None:
    person.paste(LONG)
    person.sees("You said")
    person.say(f"hold {contact}")
    person.page.until("document.querySelector('.status')?.textContent === 'Waiting at the door'")
    person.page.until(AT_END)
    person.page.evaluate(
        "new Promise(done => { const place = document.querySelector('.conversation'); "
        # The page may be about to scroll to the end itself: a person then scrolls up once more.
        "const scroll = () => place.scrollTop ? place.scrollTop = 0 : done(true); "
        "place.addEventListener('scroll', scroll); place.scrollTop = 0; })"
    )
    with site.client() as client:
        client.post("/api/v1/chat", json={"contact_id": "door", "message": f"open {contact}"}).raise_for_status()
    person.sees("Wait, done")
    person.page.until("document.querySelector('aside .preview')?.textContent === 'Wait, done'")
    assert person.page.evaluate("document.querySelector('.conversation').scrollTop") == 0


def test_the_page_keeps_its_layout_while_the_keyboard_of_a_phone_is_open(
    browser: Chromium, site: Served, contact: str
) -> None:
    with person_at(browser, site.url, PHONE._replace(height=380), contact) as person:
        person.page.until("document.querySelector('.conversation')")
        assert person.page.evaluate("getComputedStyle(document.querySelector('.conversation')).overflowY") == "auto"


def test_an_opened_command_is_in_view(person: Person) -> None:
    person.paste(LONG)
    person.sees("You said")
    person.page.until(AT_END)
    person.click("curl")
    button = "document.querySelector('.curl button')?.getBoundingClientRect().bottom"
    person.page.until(f"{button} <= document.querySelector('.composer').getBoundingClientRect().top")


def test_the_button_send_is_beside_the_message_field_on_a_phone(browser: Chromium, site: Served, contact: str) -> None:
    with person_at(browser, site.url, PHONE, contact) as person:
        person.page.until("document.querySelector('input[type=file]')")
        assert person.page.evaluate(
            "document.querySelector('.composer .primary').getBoundingClientRect().left >= "
            "document.querySelector('#message').getBoundingClientRect().right"
        )
