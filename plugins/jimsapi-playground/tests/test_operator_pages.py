"""The pages for operators in Chromium: runs, contacts, and what is done with a whole conversation."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from person import Person, enter_key, new_key, person_at, run_keys

from tests.clients.chromium import Chromium
from tests.serving import Served
from tests.waiting import eventually

ROWS = ".rows li"
READ_ROWS = "document.querySelector('.rows')?.getAttribute('aria-busy') === 'false'"
CATCH_FILE = (
    "window.saved = new Promise(done => { const make = URL.createObjectURL; URL.createObjectURL = blob => { "
    "blob.text().then(done); return make.call(URL, blob); }; }); null"
)


def chat(server: Served, contact: str, message: str, key: str = "") -> httpx.Response:
    with server.client() as client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return client.post("/api/v1/chat", json={"contact_id": contact, "message": message}, headers=headers)


def begin(server: Served, contact: str, message: str, key: str = "") -> str:
    """Begin a run in the background. Returns its identifier."""
    with server.client() as client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        begun = client.post("/api/v1/runs", json={"contact_id": contact, "message": message}, headers=headers)
        return str(begun.raise_for_status().json()["run_id"])


def choose(person: Person, status: str = "", contact: str = "") -> None:
    """Choose which runs are listed, and wait for them."""
    for field, value, event in (("#status", status, "change"), ("#of-contact", contact, "input")):
        person.page.evaluate(
            f"(one => {{ one.value = {json.dumps(value)}; "
            f"one.dispatchEvent(new Event('{event}', {{bubbles: true}})); }})(document.querySelector('{field}'))"
        )
    person.click("Show")


def shows(person: Person, *texts: str) -> None:
    """Wait until there are as many rows as texts, each with its text."""
    rows = f"[...document.querySelectorAll({json.dumps(ROWS)})].map(one => one.innerText)"
    person.page.until(
        f"(rows => rows.length === {len(texts)} && "
        f"{json.dumps(texts)}.every((text, n) => rows[n].includes(text)))({rows})"
    )


def test_an_operator_finds_a_failed_run_and_reads_why(
    operator: Person, guarded: Served, contact: str, key: str
) -> None:
    chat(guarded, contact, "fail", key)
    chat(guarded, contact, "hello", key).raise_for_status()
    chat(guarded, f"{contact} 2", "hello", key).raise_for_status()
    operator.click("Runs")
    operator.page.until(f"{READ_ROWS} && document.querySelectorAll('{ROWS}').length >= 3")
    assert f"{contact} 2" in operator.texts(ROWS)[0], "the runs of all contacts are listed, the newest first"
    choose(operator, contact=contact)
    shows(operator, "completed", "failed")
    choose(operator, "failed", contact)
    shows(operator, "its pipeline failed")
    operator.click("Details", ROWS)
    operator.page.until("document.querySelector('.rows .code')?.textContent.includes('no model')")
    assert operator.texts(".rows .problem") == ["Pipeline error: no model"]
    operator.click("Details", ROWS)
    operator.page.until("!document.querySelector('.rows .code')")


def test_an_operator_cancels_a_run_of_somebody_else(operator: Person, guarded: Served, contact: str, key: str) -> None:
    run_id = begin(guarded, contact, f"hold {contact}", key)
    operator.click("Runs")
    operator.page.until("document.querySelector('#of-contact')")
    choose(operator, "running", contact)
    shows(operator, run_id)
    operator.click("Cancel", ROWS)
    operator.page.until("document.querySelector('[role=status]').textContent === 'The run was cancelled'")
    choose(operator, "cancelled", contact)
    shows(operator, run_id)
    assert not any("Cancel" in text for text in operator.texts(".rows button"))


def test_the_reason_why_a_run_was_not_cancelled_stays(person: Person, site: Served, contact: str) -> None:
    run_id = begin(site, contact, f"hold {contact}")
    person.click("Runs")
    shows(person, run_id)
    chat(site, "door", f"open {contact}").raise_for_status()
    with site.client() as client:
        eventually(lambda: client.get(f"/api/v1/runs/{run_id}").json()["status"] == "completed")
    person.click("Cancel", ROWS)
    person.page.until("document.querySelector('.rows .badge').textContent === 'completed'")
    [problem] = person.texts(".rows .problem")
    assert problem.startswith("The run was not cancelled: ")
    assert "it is completed" in problem


def test_an_operator_goes_from_a_run_to_its_conversation(
    operator: Person, guarded: Served, contact: str, key: str
) -> None:
    chat(guarded, contact, "good morning", key).raise_for_status()
    operator.click("Runs")
    operator.page.until("document.querySelector('#of-contact')")
    choose(operator, contact=contact)
    shows(operator, "completed")
    operator.click("Conversation", ROWS)
    operator.sees("You said good morning")
    operator.page.until(f"document.querySelector('#contact').value === {json.dumps(contact)}")
    operator.ask("and good night", "You said good morning, and good night")


def test_an_operator_goes_from_a_contact_to_its_conversations_and_runs(
    operator: Person, guarded: Served, contact: str, key: str
) -> None:
    chat(guarded, contact, "good morning", key).raise_for_status()
    row = f"[...document.querySelectorAll('{ROWS}')].find(one => one.innerText.includes({json.dumps(contact)}))"
    operator.click("Contacts")
    operator.page.until(row)
    assert "1 conversation, the newest event" in operator.page.evaluate(f"{row}.innerText")
    operator.page.evaluate(f"{row}.querySelectorAll('button')[1].click()")
    shows(operator, contact)
    operator.click("Contacts")
    operator.page.until(row)
    operator.page.evaluate(f"{row}.querySelectorAll('button')[0].click()")
    operator.page.until("document.querySelectorAll('aside li').length === 1")
    assert "good morning" in operator.texts("aside li")[0]


def test_a_long_list_is_read_in_pages(operator: Person, guarded: Served, contact: str, key: str) -> None:
    for number in range(51):
        chat(guarded, contact, f"{number}", key).raise_for_status()
    operator.click("Runs")
    operator.page.until(f"document.querySelectorAll('{ROWS}').length === 50 && {READ_ROWS}")
    more = "[...document.querySelectorAll('button')].find(one => one.textContent === 'More runs')"
    operator.page.until(f"(one => one && !one.disabled && (one.click(), one.click(), true))({more})")
    operator.page.until(f"document.querySelectorAll('{ROWS}').length >= 51 && {READ_ROWS}")
    shown = operator.texts(".rows .facts")
    assert len(set(shown)) == len(shown), "no run is shown twice"


def test_contacts_that_differ_in_a_space_are_two(operator: Person, guarded: Served, contact: str, key: str) -> None:
    for name in (contact, f" {contact}"):
        chat(guarded, name, f"I am {name}.", key).raise_for_status()
    rows = f"[...document.querySelectorAll('{ROWS}')].filter(one => one.innerText.includes({json.dumps(contact)}))"
    operator.click("Contacts")
    operator.page.until(f"{rows}.length === 2")
    operator.page.evaluate(f"{rows}[0].querySelectorAll('button')[1].click()")
    operator.page.until(f"document.querySelector('h2').textContent === 'Runs' && {READ_ROWS}")
    assert operator.page.evaluate(f"document.querySelectorAll('{ROWS}').length") == 1
    operator.page.until("document.activeElement.tagName === 'H2'")


def test_a_second_key_sees_nothing_of_the_first(browser: Chromium, tmp_path: Path, contact: str) -> None:
    keys = tmp_path / "keys.json"
    first = new_key(keys, "first")
    second = new_key(keys, "second", "--contact", contact)
    with Served("--app", "showing:app", "--keys-file", str(keys), folder=Path(__file__).parent) as server:
        for name in (contact, "somebody else"):
            chat(server, name, "hello", first).raise_for_status()
        with person_at(browser, server.url, contact=contact) as person:
            enter_key(person, first)
            person.click("Runs")
            person.page.until("document.querySelector('#of-contact')")
            choose(person, contact="somebody else")
            shows(person, "somebody else")
            run_keys(keys, "revoke", "first")

            def asks_for_a_key() -> bool:
                person.page.evaluate(
                    "[...document.querySelectorAll('button')].find(one => one.textContent === 'Refresh')?.click()"
                )
                return bool(person.page.evaluate("document.querySelector('#key') !== null"))

            eventually(asks_for_a_key)
            person.page.evaluate("document.querySelector('#key').focus()")
            person.page.write(second)
            person.page.press("Enter")
            shows(person, contact)


def test_a_second_key_for_chats_alone_sees_nothing_of_the_first(
    browser: Chromium, tmp_path: Path, contact: str
) -> None:
    keys = tmp_path / "keys.json"
    first = new_key(keys, "first")
    second = new_key(keys, "second", "--scope", "chat")
    with (
        Served("--app", "showing:app", "--keys-file", str(keys), folder=Path(__file__).parent) as server,
        person_at(browser, server.url, contact=contact) as person,
    ):
        enter_key(person, first)
        person.ask("one", "You said one")
        person.say("form")
        person.page.until("document.querySelector('.question') && document.querySelector('aside li')")
        person.page.evaluate("document.querySelector('#message').focus()")
        person.page.write("a secret")
        run_keys(keys, "revoke", "first")

        def asks_for_a_key() -> bool:
            person.page.evaluate("document.querySelector('[role=search]')?.requestSubmit()")
            return bool(person.page.evaluate("document.querySelector('#key') !== null"))

        eventually(asks_for_a_key)
        enter_key(person, second)
        person.page.until("document.querySelector('.conversation > .note')")
        assert person.texts(".turn, .question, aside li") == []
        assert person.page.evaluate("document.querySelector('#message').value") == ""


def test_a_server_that_admits_everybody_lists_one_contact_only(person: Person, site: Served, contact: str) -> None:
    chat(site, contact, "hello").raise_for_status()
    chat(site, f"{contact} 2", "hello").raise_for_status()
    person.click("Runs")
    shows(person, contact)
    assert person.texts("main .note") == ["This server admits every caller, so it lists the runs of one contact only."]
    choose(person, contact=f"{contact} 2")
    shows(person, f"{contact} 2")
    person.click("Contacts")
    shows(person, f"{contact}\n")
    person.page.until("document.querySelector('[role=status]').textContent === '1 contact'")
    assert "write its name in the field “Contact”" in person.texts("main .note")[0]
    person.page.evaluate("document.querySelector('#contact').focus(); document.activeElement.select()")
    person.page.write(f"{contact} 2")
    person.page.press("Enter")
    person.page.until("document.querySelectorAll('aside li').length === 1")
    person.click("Contacts")
    shows(person, f"{contact} 2")


def test_a_key_for_chats_alone_has_no_pages_for_operators(visitor: Person) -> None:
    assert visitor.texts("header nav") == []
    visitor.page.evaluate("location.hash = '#/runs'")
    visitor.page.until("document.querySelector('main .problem')?.textContent.includes('threads')")


def test_a_key_for_chats_alone_is_told_that_earlier_messages_are_not_shown(visitor: Person) -> None:
    lacking = "This key may not read conversations, so earlier messages of this one are not shown."
    visitor.ask("one", "You said one")
    assert visitor.texts(".conversation > .note") == []
    visitor.page.load()
    visitor.page.until("document.querySelector('.conversation > .note')")
    assert visitor.texts(".conversation > .note") == [lacking]
    visitor.ask("two", "You said one, two")
    assert visitor.texts(".conversation > .note") == [lacking]


def saved(person: Person) -> dict[str, Any]:
    person.page.evaluate(CATCH_FILE)
    person.click("Export")
    found: dict[str, Any] = json.loads(person.page.evaluate("window.saved"))
    return found


def test_an_exported_conversation_has_all_events_and_ratings(person: Person, site: Served, contact: str) -> None:
    person.ask("flood 1100", "That were 1100.")
    person.click("Good answer")
    person.page.until("document.querySelector('[aria-pressed=true]')")
    found = saved(person)
    assert [event["event_data"]["number"] for event in found["events"] if event["event_type"] == "note.number"] == list(
        range(1100)
    )
    assert [given["rating"] for given in found["feedback"]] == [1]
    assert (found["thread_id"], found["contact_id"]) == (person_thread(site, contact), contact)


def person_thread(site: Served, contact: str) -> str:
    with site.client() as client:
        [thread] = client.get("/api/v1/threads", params={"contact_id": contact}).json()["threads"]
        return str(thread["thread_id"])


def test_a_conversation_is_deleted_only_by_somebody_who_says_so_twice(
    person: Person, site: Served, contact: str
) -> None:
    person.ask("hello", "You said hello")
    thread = person_thread(site, contact)
    person.click("Delete", ".bar")
    person.page.until("document.querySelector('dialog[open]')")
    person.click("Keep it", "dialog")
    person.page.until("!document.querySelector('dialog[open]')")
    assert person_thread(site, contact) == thread
    person.click("Delete", ".bar")
    person.click("Delete the conversation", "dialog[open]")
    person.page.until("document.querySelector('h2').textContent === 'New conversation'")
    person.page.until("!document.querySelector('aside li')")
    person.page.until("document.activeElement.id === 'message'")
    with site.client() as client:
        assert client.get(f"/api/v1/threads/{thread}").status_code == 404


def test_a_dialog_does_not_stay_for_another_conversation(person: Person) -> None:
    person.ask("first", "You said first")
    person.click("New conversation")
    person.page.until("!document.querySelector('.turn')")
    person.ask("second", "You said second")
    person.click("Delete", ".bar")
    person.page.until("document.querySelector('dialog[open]')?.textContent.includes('second')")
    person.page.evaluate("document.querySelectorAll('aside li a')[1].click()")
    person.sees("You said first")
    assert not person.page.evaluate("document.querySelector('dialog[open]')")


def test_what_is_being_written_is_there_after_another_page(person: Person) -> None:
    person.page.evaluate("document.querySelector('#message').focus()")
    person.page.write("half a mess")
    person.click("Runs")
    person.page.until("document.querySelector('.rows')")
    person.click("Chat", "header")
    person.page.until("document.querySelector('#message')?.value === 'half a mess'")


def test_an_answer_that_began_elsewhere_does_not_take_the_page_away(person: Person, site: Served, contact: str) -> None:
    person.say(f"hold {contact}")
    person.page.until("document.querySelector('.status')")
    person.click("Runs")
    shows(person, "running")
    chat(site, "door", f"open {contact}").raise_for_status()
    person.page.until("document.querySelector('[role=status]').textContent === 'Answer: Wait, done'")
    assert person.page.evaluate("[location.hash, document.querySelector('h2').textContent]") == ["#/runs", "Runs"]
    person.click("Chat", "header")
    person.sees("Wait, done")


@pytest.mark.parametrize("path", ["runs", "contacts"])
def test_the_address_of_a_page_opens_it(browser: Chromium, site: Served, path: str) -> None:
    with person_at(browser, site.url, contact=str(uuid4())) as person:
        person.page.evaluate(f"location.hash = '#/{path}'")
        person.page.load()
        person.page.until(f"document.querySelector('h2')?.textContent.toLowerCase() === '{path}'")
