"""Events as CloudEvents: whatever they contain, the result is one."""

from datetime import UTC, datetime
from urllib.parse import unquote
from uuid import uuid4

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jimsapi.threads import SinkEvent, cloud_event, cloud_event_of, sink_event_id
from tests.cloud_events import read_cloud_event

NOW = datetime(2026, 11, 29, 22, 0, tzinfo=UTC)
ANY_TEXT = st.text(st.characters(categories=None, codec=None), max_size=20)


def decoded(text: str) -> str:
    return unquote(text, errors="surrogatepass")


@given(ANY_TEXT, ANY_TEXT)
@example("", "100 %")
@example("%00", "\0")
@example("\ud800", "\ud83d\udc28")
@example("\x7f\x9f", "\ufffe\uffff\ufdd0\U0010ffff")
@example("naïve 🐨 ", "+49 30 1234")
def test_every_text_of_an_attribute_is_allowed_and_can_be_read_again(event_type: str, contact: str) -> None:
    made = cloud_event("1", "/threads", event_type, NOW, {"text": "as it is\x7f"}, contactid=contact or "x")
    event = read_cloud_event(orjson.dumps(made))
    assert decoded(event.get_type()) == event_type or (event_type, event.get_type()) == ("", "untyped")
    assert decoded(event.get_extension("contactid")) == (contact or "x")
    assert event.get_data() == {"text": "as it is\x7f"}


def test_usual_texts_are_not_encoded() -> None:
    made = cloud_event("1", "/", "comm.user_message", NOW, {}, contactid="ann@example.org", runid="ü/ +")
    assert (made["type"], made["contactid"], made["runid"]) == ("comm.user_message", "ann@example.org", "ü/ +")


@pytest.mark.parametrize("name", ["thread_id", "runId", "run-id", "", "é", "run id"])
def test_a_name_that_is_not_allowed_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="invalid name of an extension"):
        cloud_event("1", "/", "a", NOW, {}, **{name: "x"})


def test_attributes_and_data_that_are_not_known_are_left_out() -> None:
    made = cloud_event("1", "/", "a", None, None, contactid=None)
    assert made == {"specversion": "1.0", "id": "1", "source": "/", "type": "a", "datacontenttype": "application/json"}


def test_a_stored_event_has_its_thread_as_source_and_an_identifier_of_its_own() -> None:
    event = SinkEvent(event_type="a", event_data="one", thread_id=uuid4(), contact_id="ann", run_id=uuid4())
    other = SinkEvent(event_type="a", event_data=[1], event_id=event.event_id)
    read = read_cloud_event(orjson.dumps(cloud_event_of(event)))
    assert (read.get_id(), read.get_source()) == (sink_event_id(event), f"/threads/{event.thread_id}")
    assert (read.get_extension("runid"), read.get_extension("contactid")) == (str(event.run_id), "ann")
    assert read.get_time() == event.created_at.replace(tzinfo=UTC)
    assert read.get_data() == "one"
    assert read_cloud_event(orjson.dumps(cloud_event_of(other))).get_id() != read.get_id()
