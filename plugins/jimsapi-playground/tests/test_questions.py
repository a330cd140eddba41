"""Questions of a pipeline: answered by what a person types, and by a form."""

import json

from person import DESKTOP, Person, person_at

from tests.clients.chromium import Chromium
from tests.serving import Served

FOCUS = "document.activeElement"
PLACEHOLDER = "document.querySelector('#message').placeholder"


def fill(person: Person, label: str, text: str) -> None:
    """Enter a text into the field with this label, in place of what is there."""
    person.page.until(
        "(label => label && (label.control.focus(), label.control.select(), true))"
        f"([...document.querySelectorAll('.question label')].find(one => one.textContent === {json.dumps(label)}))"
    )
    person.page.write(text)


def test_a_typed_option_answers_the_question(person: Person) -> None:
    person.say("ask me")
    expected = "Type an option to answer the question. A message closes the open question"
    person.page.until(f"{PLACEHOLDER} === '{expected}'")
    person.say("Yes")
    person.sees("You chose yes.")
    assert person.texts(".said .plain") == ["ask me", "Answer: yes"]
    assert person.page.evaluate(PLACEHOLDER) == "Say something"


def test_another_text_is_a_message_and_closes_the_question(person: Person) -> None:
    person.say("ask me")
    person.page.until("document.querySelector('.question')")
    person.say("perhaps")
    person.sees("You said ask me, perhaps")
    assert person.texts(".question") == []


def test_a_typed_text_answers_a_question_that_asks_for_a_text(person: Person) -> None:
    person.say("free text")
    person.page.until(f"{PLACEHOLDER} === 'Type the answer to the question'")
    person.say("Ann")
    person.sees("Hello Ann.")


def test_the_field_does_not_warn_of_a_question_that_stays_open(person: Person) -> None:
    person.say("stays")
    person.page.until("document.querySelector('.question')")
    assert person.page.evaluate(PLACEHOLDER) == "Say something"
    person.say("form please")
    person.page.until("document.querySelectorAll('.question').length === 2")
    expected = "Type an option to answer the first question. A message closes the open question"
    person.page.until(f"{PLACEHOLDER} === '{expected}'")


def test_a_key_does_not_choose_an_option_of_a_question_that_appears(person: Person) -> None:
    person.say("ask me")
    person.page.until("document.querySelector('.question')")
    person.page.press(" ")
    person.page.press("Enter")
    person.page.until(f"{FOCUS}.id === 'message' && {FOCUS}.value === ' '")
    assert person.texts(".said .plain") == ["ask me"]
    assert person.page.evaluate("document.querySelectorAll('.question button').length") == 2


def test_a_question_that_a_typed_text_cannot_answer_gets_the_focus(person: Person) -> None:
    person.say("form please")
    person.page.until(f"{FOCUS}.className === 'question'")


def test_a_typed_text_answers_the_first_of_several_questions(person: Person) -> None:
    person.say("stays")
    person.page.until("document.querySelector('.question')")
    person.say("ask me")
    person.page.until("document.querySelectorAll('.question').length === 2")
    expected = "Type an option to answer the first question. A message closes the open question"
    person.page.until(f"{PLACEHOLDER} === '{expected}'")
    person.say("NOW")
    person.sees("It stays: now")
    person.page.until("document.querySelectorAll('.question').length === 1")


def test_a_typed_text_is_a_message_while_a_question_for_a_text_stays_open(person: Person) -> None:
    person.say("keeps")
    person.page.until("document.querySelector('.question')")
    assert person.page.evaluate(PLACEHOLDER) == "Say something"
    person.ask("hello", "You said keeps, hello")
    assert len(person.texts(".question")) == 1


def test_a_question_does_not_take_the_focus_from_somebody_who_writes(
    person: Person, site: Served, contact: str
) -> None:
    person.say(f"late {contact}")
    person.page.until("document.querySelector('.status')")
    person.page.write("wait")
    with site.client() as client:
        client.post("/api/v1/chat", json={"contact_id": "door", "message": f"open {contact}"}).raise_for_status()
    person.page.until("document.querySelector('.question')")
    assert person.page.evaluate(f"[{FOCUS}.id, {FOCUS}.value]") == ["message", "wait"]


def test_a_question_of_a_type_has_a_field_for_each_part(person: Person) -> None:
    person.say("deliver")
    person.page.until("document.querySelector('.question form')")
    assert person.texts(".question label") == [
        "who (required)", "street (required)", "floor", "kind", "street", "floor", "tip",
    ]  # fmt: skip
    assert person.texts(".question legend") == ["to (required)", "back"]
    person.page.evaluate("document.querySelector('.question input').focus()")
    described = f"document.getElementById({FOCUS}.getAttribute('aria-describedby'))?.textContent"
    person.page.until(f"{described} === 'The name at the door.'")
    assert "Where somebody opens the door." in person.texts(".question fieldset .note")
    assert person.page.evaluate("document.querySelector('.question select').value") == "van"
    required = "[...document.querySelectorAll('.question :required')].length"
    assert person.page.evaluate(required) == 2, "the parts of what may be left out are not required"
    fill(person, "who (required)", "Ann")
    fill(person, "street (required)", "Main Street 1")
    person.click("Answer", ".question")
    person.sees(
        "Delivery: Delivery(who='Ann', to=Place(street='Main Street 1', floor=0), kind='van', back=None, tip=None)"
    )


def test_the_beginning_of_a_long_form_is_in_view(browser: Chromium, site: Served, contact: str) -> None:
    place = "document.querySelector('.conversation').getBoundingClientRect()"
    label = "document.querySelector('.question label').getBoundingClientRect()"
    with person_at(browser, site.url, DESKTOP._replace(height=600), contact=contact) as person:
        person.ask("tell me", "Rottnest Island")
        person.say("deliver")
        person.page.until(f"{FOCUS}.closest('.question')")
        person.page.until("document.querySelector('aside .facts')?.textContent.includes('has a question')")
        person.page.until(f"{label}.top > {place}.top && {label}.bottom < {place}.bottom")


def test_an_answer_that_is_not_accepted_stays_in_the_form_with_the_reason(person: Person) -> None:
    person.say("deliver")
    fill(person, "who (required)", "Ann")
    fill(person, "street (required)", "Main Street 1")
    fill(person, "floor", "-1")
    person.click("Answer", ".question")
    person.page.until("document.querySelector('.conversation > .problem') && document.querySelector('.question')")
    assert person.texts(".problem") == ["The answer was not accepted: the answer.to.floor must be at least 0"]
    fill(person, "floor", "3")
    person.click("Answer", ".question")
    person.sees("to=Place(street='Main Street 1', floor=3)")
    assert person.texts(".problem") == []


def test_json_is_asked_for_with_the_names_of_its_fields(person: Person) -> None:
    person.say("route")
    person.page.until("document.querySelector('.question textarea')")
    assert person.texts(".question label") == ["name (required)", "stops as JSON (required)"]
    [note] = person.texts(".question .field .note")
    assert note == "JSON: a list, each of it an object with the fields street (required), floor"
    fill(person, "name (required)", "home")
    fill(person, "stops as JSON (required)", "Main Street 1")
    person.click("Answer", ".question")
    person.page.until("document.querySelector('.question .problem')")
    [problem] = person.texts(".problem")
    assert problem.startswith("“stops as JSON” has a text that is not JSON.")
    described = f"document.getElementById({FOCUS}.getAttribute('aria-describedby').split(' ')[0]).textContent"
    assert person.page.evaluate(f"[{FOCUS}.ariaInvalid, {described}]") == ["true", problem]
    fill(person, "stops as JSON (required)", '[{"floor": 1}]')
    person.click("Answer", ".question")
    person.page.until("document.querySelector('.conversation > .problem') && document.querySelector('.question')")
    assert person.texts(".problem") == ["The answer was not accepted: the answer.stops[0] lacks street"]
    fill(person, "stops as JSON (required)", '[{"street": "Main Street 1"}]')
    person.click("Answer", ".question")
    person.sees("Route: Route(name='home', stops=[Place(street='Main Street 1', floor=0)])")


def test_a_key_for_chats_alone_answers_one_question_once(visitor: Person) -> None:
    visitor.say("free text")
    visitor.page.until("document.querySelector('.question')")
    visitor.say("Ann")
    visitor.sees("Hello Ann.")
    assert visitor.texts(".question") == []
    visitor.ask("hello", "You said free text, hello")
    visitor.say("ask me")
    visitor.page.until("document.querySelector('.question')")
    visitor.ask("perhaps", "You said free text, hello, ask me, perhaps")
    assert visitor.texts(".question") == [], "the message has closed it"
    assert visitor.texts(".said .plain") == ["free text", "Answer: Ann", "hello", "ask me", "perhaps"]


def test_a_message_that_is_refused_is_no_turn_for_a_key_for_chats_alone(visitor: Person) -> None:
    visitor.ask("one", "You said one")
    visitor.paste("x" * 2_000_000)
    visitor.page.until("document.querySelector('.conversation > .problem')")
    assert visitor.texts(".said .plain") == ["one"]
