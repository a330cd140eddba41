"""The page in Chromium: what a person sees of a conversation, and what the buttons do."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from person import Person, person_at

from tests.clients.chromium import Chromium
from tests.serving import Served


def threads_of(site: Served, contact: str) -> list[dict[str, Any]]:
    with site.client() as client:
        found: list[dict[str, Any]] = client.get("/api/v1/threads", params={"contact_id": contact}).json()["threads"]
        return found


def test_a_person_reads_an_answer_and_what_happened_for_it(person: Person) -> None:
    person.ask("tell me", "Rottnest Island")
    assert person.texts(".markdown strong") == ["Rottnest Island"]
    assert person.texts(".markdown td") == ["Rottnest", "10000", "Bald", "600"]
    [summary] = person.texts(".timeline > summary")
    assert "856 tokens, $0.0012" in summary
    person.click(summary)
    steps = person.texts(".timeline > ol > li > .step")
    assert steps == [
        "Asking the graph", "Reasoning", "Tool graph", "Tool database", "Source", "Model small-model", "Message",
    ]  # fmt: skip
    assert "MATCH" in person.texts(".code.cypher .t-keyword")
    assert "SELECT" in person.texts(".code.sql .t-keyword")
    assert "the database is away" in person.texts(".timeline .problem")
    person.click("result, 8 items")
    person.page.until("document.querySelector('.code.json .t-key')")


def test_a_reload_shows_the_same_conversation(person: Person) -> None:
    person.ask("tell me", "Rottnest Island")
    before = person.texts(".turn .markdown")
    person.page.load()
    person.page.until("document.querySelector('.turn .markdown')")
    assert person.texts(".turn .markdown") == before
    [summary] = person.texts(".timeline > summary")
    assert "856 tokens" in summary


def test_a_new_conversation_of_a_contact_is_a_thread_of_its_own(person: Person, site: Served, contact: str) -> None:
    person.ask("one", "You said one")
    person.ask("two", "You said one, two")
    person.click("New conversation")
    person.page.until("!document.querySelector('.turn')")
    person.ask("three", "You said three")
    assert len(threads_of(site, contact)) == 2
    person.page.until("document.querySelectorAll('aside li').length === 2")
    person.page.evaluate("document.querySelectorAll('aside li a')[1].click()")
    person.sees("You said one, two")


def test_a_person_edits_and_regenerates(person: Person) -> None:
    person.ask("one", "You said one")
    person.ask("two", "You said one, two")
    person.click("Regenerate")
    person.page.until("document.querySelectorAll('aside li').length === 2")
    person.sees("You said one, two")
    person.click("Edit", ".turn:first-of-type")
    person.page.until("document.activeElement.getAttribute('aria-label') === 'The edited message'")
    person.page.evaluate("document.activeElement.select()")
    person.page.write("ONE")
    person.page.press("Escape")
    person.page.until("document.activeElement.id === 'message' && !document.querySelector('.said form')")
    assert person.texts(".said .plain") == ["one", "two"], "Escape closes the editor"
    person.click("Edit", ".turn:first-of-type")
    person.page.until("document.activeElement.getAttribute('aria-label') === 'The edited message'")
    person.page.evaluate("document.activeElement.select()")
    person.page.write("ONE")
    person.click("Send the edited message")
    person.sees("You said ONE")
    assert person.texts(".said .plain") == ["ONE"]


def test_a_person_answers_a_question_by_a_button(person: Person) -> None:
    person.say("ask me")
    person.click("yes", ".question")
    person.sees("You chose yes.")
    assert person.texts(".question") == []


def test_a_person_answers_a_question_by_a_form_after_a_reload(person: Person) -> None:
    person.say("form please")
    person.page.until("document.querySelector('.question form')")
    person.page.load()
    person.page.until("document.querySelector('.question input[type=number]')")
    person.page.evaluate("document.querySelector('.question input[type=number]').focus()")
    person.page.write("2")
    person.page.evaluate(
        "(one => { one.value = 'cake'; one.dispatchEvent(new Event('change', {bubbles: true})); })"
        "(document.querySelector('.question select'))"
    )
    person.page.evaluate("document.querySelector('.question input[type=checkbox]').click()")
    person.click("Answer", ".question")
    person.sees("Booked: {'seats': 2, 'meal': 'cake', 'window': True}")


def test_the_buttons_of_a_message_send_their_text(person: Person) -> None:
    person.ask("buttons", "Choose")
    person.click("say two")
    person.sees("You said buttons, say two")


def test_a_person_sends_and_downloads_a_file(person: Person) -> None:
    person.page.until("document.querySelector('input[type=file]')")
    person.page.evaluate(
        "(input => { const files = new DataTransfer(); files.items.add(new File(['meow'], 'cat.txt', "
        "{type: 'text/plain'})); input.files = files.files; input.dispatchEvent(new Event('change', "
        "{bubbles: true})); })(document.querySelector('input[type=file]'))"
    )
    person.page.until("document.querySelector('.chips li')")
    person.ask("look", "cat.txt has 4 bytes.")
    assert person.texts(".said .chip") == ["Download cat.txt"]
    person.page.evaluate(
        "window.saved = new Promise(done => { const make = URL.createObjectURL; URL.createObjectURL = blob => { "
        "blob.text().then(done); return make.call(URL, blob); }; }); null"
    )
    person.click("Download cat.txt")
    assert person.page.evaluate("window.saved") == "meow"


def test_a_person_searches_and_finds_a_conversation(person: Person) -> None:
    person.ask("quokka", "You said quokka")
    person.click("New conversation")
    person.ask("wombat", "You said wombat")
    person.page.evaluate("document.querySelector('#search').focus()")
    person.page.write("quokka")
    person.page.until("document.querySelectorAll('aside li').length === 1")
    assert "quokka" in person.texts("aside li")[0]
    person.page.until("document.querySelector('[role=status]').textContent === '1 conversation found'")


def test_a_person_rates_an_answer_and_says_why(person: Person, site: Served, contact: str) -> None:
    person.ask("one", "You said one")
    person.click("Bad answer")
    person.page.until("document.querySelector('.inline input')")
    person.page.evaluate("document.querySelector('.inline input').focus()")
    person.page.write("Too short")
    person.click("Save the comment")
    person.page.until("document.querySelector('[role=status]').textContent === 'The rating was stored'")
    person.page.load()
    person.page.until("document.querySelector('[aria-pressed=true]')?.textContent === 'Bad answer'")
    [thread] = threads_of(site, contact)
    with site.client() as client:
        [given] = client.get(f"/api/v1/threads/{thread['thread_id']}/feedback").json()["feedback"]
    assert (given["rating"], given["comment"]) == (-1, "Too short")


def test_the_text_of_a_model_cannot_become_a_script(person: Person) -> None:
    person.ask("attack", "onerror")
    links = person.page.evaluate("[...document.querySelectorAll('.turn a')].map(one => [one.href, one.rel])")
    assert links == [
        ["https://example.org/", "noopener noreferrer"],
        ["mailto:a@example.org", "noopener noreferrer"],
    ]
    hurt = "[window.hurt === undefined, document.querySelectorAll('.turn img, .turn script').length]"
    assert person.page.evaluate(hurt) == [True, 0]


@pytest.mark.parametrize("text", [">" * 5000, "`" * 20000, "[" * 20000, "*a " * 9000, "- \n" * 9000, "|" * 20000])
def test_a_strange_text_is_shown(person: Person, text: str) -> None:
    person.paste(f"echo {text}")
    person.sees("You said")


def test_the_pieces_of_an_answer_do_not_render_the_page_again(person: Person, site: Served, contact: str) -> None:
    count = """
        window.changes = 0;
        new MutationObserver(found => { window.changes += found.filter(one => one.type === "childList").length; })
            .observe(document.querySelector("#app"), {childList: true, subtree: true, characterData: true});
    """
    person.say(f"stream {contact}")
    person.page.until("document.querySelector('.turn .answer')?.innerText.includes('Wait, ')")
    person.page.evaluate(count)
    with site.client() as client:
        client.post("/api/v1/chat", json={"contact_id": "door", "message": f"open {contact}"}).raise_for_status()
    person.sees("2999")
    assert person.page.evaluate("window.changes") < 300


def test_a_long_thread_shows_its_newest_events_first(person: Person) -> None:
    person.ask("first", "You said first")
    person.ask("flood 10500", "That were 10500.")
    person.page.load()
    person.sees("That were 10500.")
    person.click("Raw log")
    person.page.until("document.querySelector('.log .step')?.textContent === 'comm.assistant_message'")
    person.click("Show earlier events")
    person.page.until("document.querySelectorAll('.log li').length === 400")
    person.page.evaluate("document.querySelector('.log summary').click()")
    person.page.until("document.querySelector('.log .code')?.textContent.includes('That were 10500.')")


@pytest.mark.parametrize("hash", ["#/threads/%", "#/threads/%E0%A4%A", "#/nothing", "#%", "#/threads/not-a-thread"])
def test_an_address_that_names_nothing_shows_the_start(browser: Chromium, site: Served, hash: str) -> None:
    with person_at(browser, site.url) as person:
        person.page.evaluate(f"location.hash = {json.dumps(hash)}")
        person.page.load()
        person.page.until("document.querySelector('h2')?.textContent === 'New conversation'")


def test_a_thread_that_does_not_exist_is_said(browser: Chromium, site: Served) -> None:
    with person_at(browser, site.url) as person:
        person.page.evaluate(f"location.hash = '#/threads/{uuid4()}'")
        person.page.until("document.querySelector('.conversation .problem')?.textContent.includes('not')")


def test_a_failed_run_is_said_and_stays_after_the_next_message(person: Person) -> None:
    person.ask("fail", "The run failed: Pipeline error: no model")
    person.ask("one", "You said fail, one")
    assert person.texts(".turn .problem") == ["The run failed: Pipeline error: no model"]


def test_a_failed_run_is_named_as_in_the_log_of_the_server(person: Person, site: Served, contact: str) -> None:
    person.ask("fail", "The run failed")
    [note] = person.texts(".turn .answer > .note")
    with site.client() as client:
        [run] = client.get("/api/v1/runs", params={"contact_id": contact}).json()["runs"]
    assert note == f"Run {run['run_id']}. The server’s log has the traceback, with this identifier."


def test_reasoning_is_shown_as_it_comes(person: Person, site: Served, contact: str) -> None:
    person.say(f"think {contact}")
    person.page.until("document.querySelector('.timeline .plain')?.innerText.includes('The person waits.')")
    assert person.texts(".status") == ["Working"]
    with site.client() as client:
        client.post("/api/v1/chat", json={"contact_id": "door", "message": f"open {contact}"}).raise_for_status()
    person.sees("thought")
    person.click(person.texts(".timeline > summary")[0])
    person.page.until("document.querySelector('.timeline').innerText.includes('The person waits. Not any more.')")


def test_a_message_that_is_refused_comes_back(browser: Chromium, site: Served) -> None:
    with person_at(browser, site.url, contact="x" * 500) as person:
        person.page.evaluate("localStorage.setItem('jimsapi.playground.contact', 'ä'.repeat(1500))")
        person.page.load()
        person.say("one")
        person.page.until("document.querySelector('.conversation .problem')?.innerText.includes('at most 2000 bytes')")
        person.page.until("document.querySelector('#message')?.value === 'one'")


def test_a_person_stops_a_run(person: Person, contact: str) -> None:
    person.say(f"hold {contact}")
    person.page.until("document.querySelector('.turn .answer')?.innerText.includes('Wait, ')")
    person.click("Stop")
    person.sees("Stopped. The server does not store an answer that was stopped.")
    assert person.texts(".turn .answer > .plain") == ["Wait, "], "what has arrived stays"
    assert person.texts(".turn .problem") == []
    person.page.until("document.querySelector('[role=status]').textContent === 'Stopped'")
    person.ask("one", ", one")
    assert "Wait," in person.texts(".turn:first-of-type")[0]


def test_a_page_that_is_loaded_again_goes_on_with_the_open_run(person: Person, site: Served, contact: str) -> None:
    person.say(f"hold {contact}")
    person.page.until("document.body.innerText.includes('Wait, ')")
    person.page.load()
    person.page.until("document.body.innerText.includes('Wait, ')")
    assert person.texts(".said .plain") == [f"hold {contact}"]
    with site.client() as client:
        client.post("/api/v1/chat", json={"contact_id": "door", "message": f"open {contact}"}).raise_for_status()
    person.sees("Wait, done")


def test_the_page_asks_for_the_key_and_keeps_it_in_its_tab(
    browser: Chromium, guarded: Served, contact: str, key: str
) -> None:
    with person_at(browser, guarded.url, contact=contact) as person:
        for given in ("wrong", key):
            person.page.until("document.activeElement.id === 'key'")
            person.page.write(given)
            person.page.press("Enter")
            person.page.until("document.querySelector('.problem, #message')")
            if given == "wrong":
                assert person.texts(".problem") == ["The server does not accept this key."]
                person.page.evaluate(
                    "document.querySelector('#key').value = ''; document.querySelector('#key').focus()"
                )
        person.ask("one", "You said one")
        person.click("curl")
        [command] = person.texts(".curl code")
        assert '-H "Authorization: Bearer $JIMS_KEY"' in command
        shown = "document.documentElement.outerHTML + location.href + JSON.stringify(localStorage)"
        assert key not in person.page.evaluate(shown)
        person.page.load()
        person.sees("You said one")
        person.click("Forget the key")
        person.page.until("document.querySelector('#key')")
        assert key not in person.page.evaluate("JSON.stringify(sessionStorage)")


def test_the_command_of_a_message_does_what_the_page_did(person: Person, run_shell: Callable[[str], str]) -> None:
    person.ask('it\'s "so" $HOME `x`', "You said it's")
    person.click("curl")
    [command] = person.texts(".curl code")
    assert "Authorization" not in command
    assert 'You said it\'s \\"so\\" $HOME `x`' in run_shell(command)
