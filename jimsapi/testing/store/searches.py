"""Tests of searches, and of what lists of threads show and filter: metadata, forks and open questions."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.facts import plan_of
from jimsapi.testing.store.samples import all_events, fill, make_event, make_plan, take_turn
from jimsapi.threads.errors import InvalidCursor
from jimsapi.threads.event import NewEvent
from jimsapi.threads.facts import ThreadChange
from jimsapi.threads.ids import uuid7
from jimsapi.threads.questions import (
    QUESTION_ANSWERED,
    QUESTION_ASKED,
    QUESTION_CLOSED,
    Question,
    answer_id,
    closing_id,
)
from jimsapi.threads.run import ById
from jimsapi.threads.search import MAX_TEXT, MAX_WORDS, NO_FILTER, SearchQuery, ThreadFilter, ThreadMatch, parse_query
from jimsapi.threads.store import PAGE_BYTES, ThreadStore


def said(text: Any, event_type: str = "comm.assistant_message") -> NewEvent:
    """Return a message of the assistant."""
    return make_event(event_type, {"role": "assistant", "content": text})


def query_of(text: str) -> SearchQuery:
    """Return what a person typed as a query."""
    query = parse_query(text)
    assert query is not None, text
    return query


async def search(store: ThreadStore, text: str, contact_id: str = "ann", **options: Any) -> list[ThreadMatch]:
    """Return what all pages of a search have, three threads in each."""
    found: list[ThreadMatch] = []
    after = None
    for _ in range(100):
        page = await store.search(query_of(text), contact_id, 3, after, **options)
        found += page.matches
        after = page.next
        if after is None:
            return found
        assert len(page.matches) == 3
    raise AssertionError("the search does not end")


async def found_ids(store: ThreadStore, text: str, contact_id: str = "ann", **options: Any) -> list[UUID]:
    """Return the threads that a search finds."""
    return [match.thread.thread_id for match in await search(store, text, contact_id, **options)]


class Searches(StoreTests):
    """Tests of searches, and of what lists of threads show and filter."""

    @pytest.mark.parametrize(
        ("text", "finds", "finds_not"),
        [
            ("The Quokka hops.", ["quokka", "QUOKKA the", '"the quokka"', "hops!", "quokka quokka"], ["quok", "okka"]),
            ("one two three", ['"one two" three', "three one", '"two three"'], ['"one three"', '"two one"', "four"]),
            ("Élan vital à Zürich, Ångström", ["elan", "ÉLAN", "zurich", "ångstrom a"], ["zuerich"]),
            ("Straße", ["strasse", "STRASSE", "straße"], ["strase"]),
            ("Привет, Ёлка!", ["привет", "ЕЛКА", "ёлка"], ["елк"]),
            ("γειά σου Κόσμε", ["γεια", "ΚΟΣΜΕ", '"σου κοσμε"'], ["κοσμ"]),
            ("שָׁלוֹם עולם", ["שלום", "עולם"], ["של"]),
            ("مُحَمَّد قال", ["محمد"], ["مح"]),
            ("हिन्दी में लिखें", ["हिन्दी", "में"], ["हिन"]),
            ("안녕하세요 세계", ["안녕하세요", "세계"], ["안녕"]),
            ("今日は世界へ", ["世界", "今日", "界へ", '"世界"'], ["界世", "世日"]),
            ("สวัสดีชาวโลก", ["สวัสดี", "โลก"], ["แมว"]),
            (
                "don't stop foo-bar_baz 3.14",
                ["don't", "stop foo", "bar baz", "3.14", '"foo bar"'],
                ["dont"],
            ),
            ("x AND y OR NOT z", ["and", "NOT", "or z", '"or not"'], ["near"]),
            ("𝒳𝓎 𐐀𐐁 🦊", ["xy", "𐐨𐐩"], ["z"]),
        ],
    )
    async def test_words_and_phrases_are_found_in_every_script(
        self, store: ThreadStore, text: str, finds: list[str], finds_not: list[str]
    ) -> None:
        thread_id = await fill(store, [said(text)])
        for one in finds:
            assert await found_ids(store, one) == [thread_id], one
        for one in finds_not:
            assert await found_ids(store, one) == [], one

    @pytest.mark.parametrize(
        "text",
        ['"', '""" a', "a*", "a:b", "(a", "a)", "^a", "a NEAR(b, 2)", "-a", "a & !b", "a <-> b", "'a", "a\\", "{a}"],
    )
    async def test_no_query_is_an_error_of_syntax(self, store: ThreadStore, text: str) -> None:
        thread_id = await fill(store, [said("a b near b 2")])
        query = parse_query(text)
        if query is not None:
            assert await found_ids(store, text) == [thread_id]

    async def test_all_words_must_be_in_one_message_or_in_the_title(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [said("red fox"), said("blue bird")])
        await store.change_thread(thread_id, None, ThreadChange(title="Green Frog"))
        for text in ("fox red", "bird", "green FROG", '"green frog"'):
            assert await found_ids(store, text) == [thread_id], text
        for text in ("red bird", "fox frog", '"fox blue"'):
            assert await found_ids(store, text) == [], text

    async def test_a_result_has_the_newest_message_that_matches_or_none_for_the_title(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [said("fox one"), said("fox two"), said("bird")])
        await store.change_thread(thread_id, None, ThreadChange(title="A fox and a frog"))
        events = await all_events(store, thread_id)
        [match] = await search(store, "fox")
        assert match.thread == await store.thread(thread_id, None)
        assert match.event is not None
        assert UUID(str(match.event.event_id)) == events[-2].event_id
        assert orjson.loads(match.event.data or b"")["content"] == "fox two"
        [match] = await search(store, "frog")
        assert match.event is None

    async def test_only_messages_with_text_are_searched(self, store: ThreadStore) -> None:
        others: list[Any] = [None, 5, ["fox"], {"fox": "fox"}]
        thread_id = await fill(store, [said(other) for other in others])
        await store.append(thread_id, None, [make_event("rag.step", {"content": "fox"}), make_event("comm.x", ["fox"])])
        await store.append(thread_id, None, [make_event("comm.x", {"text": "fox"}), said("")])
        assert await found_ids(store, "fox") == []
        await store.append(thread_id, None, [said("fox", "comm.note")])
        assert await found_ids(store, "fox") == [thread_id]

    async def test_results_come_newest_thread_first_page_by_page(self, store: ThreadStore) -> None:
        threads = [await fill(store, [said("even" if number % 2 == 0 else "odd")] * 1) for number in range(14)]
        assert await found_ids(store, "odd") == threads[1::2][::-1]
        more = [await fill(store, [said("odd")]) for _ in range(2)]
        await take_turn(store, text="odd again", selectors=(ById(threads[0]),))
        assert await found_ids(store, "odd") == [*more[::-1], *threads[1::2][::-1], threads[0]]

    async def test_a_search_finds_what_was_stored_since_the_last_one(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [said("first")])
        assert await found_ids(store, "second") == []
        for number in range(5):
            await store.append(thread_id, None, [said(f"second n{number}")])
            assert await found_ids(store, f"second n{number}") == [thread_id]
        [match] = await search(store, "second")
        assert b"n4" in orjson.dumps(orjson.loads((match.event and match.event.data) or b""))
        await store.change_thread(thread_id, None, ThreadChange(title="Old name"))
        assert await found_ids(store, "old name") == [thread_id]
        await store.change_thread(thread_id, None, ThreadChange(title="New name"))
        assert (await found_ids(store, "old name"), await found_ids(store, "new name")) == ([], [thread_id])
        await store.change_thread(thread_id, None, ThreadChange(title=None))
        assert await found_ids(store, "new name") == []

    async def test_a_contact_finds_only_its_own_threads(self, store: ThreadStore) -> None:
        of_ann = await fill(store, [said("fox")])
        of_bob = (await store.accept(make_plan("bob", text="fox"))).thread.thread_id
        assert await found_ids(store, "fox") == [of_ann]
        assert await found_ids(store, "fox", "bob") == [of_bob]
        assert await found_ids(store, "fox", "") == []
        assert await found_ids(store, "ann") == []

    async def test_what_is_deleted_is_not_found(self, store: ThreadStore) -> None:
        first, second = await fill(store, [said("fox")]), await fill(store, [said("fox")])
        fork = (await store.fork(plan_of(first))).thread_id
        assert await found_ids(store, "fox") == [fork, second, first]
        await store.delete_thread(second, None)
        assert await found_ids(store, "fox") == [fork, first]
        await store.delete_thread(first, None)
        assert await found_ids(store, "fox") == [fork]
        again = await fill(store, [said("fox again")])
        assert await found_ids(store, "fox") == [again, fork]
        await store.delete_contact("ann")
        assert await found_ids(store, "fox") == []
        await fill(store, [said("bird")])
        assert await found_ids(store, "fox") == []

    async def test_a_search_reads_only_the_beginning_of_a_long_message(self, store: ThreadStore) -> None:
        text = " ".join(f"w{number}" for number in range(MAX_WORDS + 1))
        thread_id = await fill(store, [said(text), said("x" * 200_000), said("fox " * 30_000)])
        assert await found_ids(store, f"w{MAX_WORDS - 1}") == [thread_id]
        assert await found_ids(store, f'"w{MAX_WORDS - 2} w{MAX_WORDS - 1}"') == [thread_id]
        assert await found_ids(store, f"w{MAX_WORDS}") == []
        assert await found_ids(store, '"fox fox"') == [thread_id]

    async def test_a_search_reads_only_the_first_characters_of_a_long_message(self, store: ThreadStore) -> None:
        text = "x" * (MAX_TEXT - 6) + " fox bird"
        korean = "안" * (MAX_TEXT - 3) + " 녕 하세요"
        thread_id = await fill(store, [said(text), said(korean)])
        assert await found_ids(store, "fox") == await found_ids(store, "녕") == [thread_id]
        assert await found_ids(store, "bird") == await found_ids(store, "하세요") == []

    async def test_a_page_of_long_matches_has_a_limit_of_bytes(self, store: ThreadStore) -> None:
        threads = [await fill(store, [said("fox " + "x" * 900_000)]) for _ in range(6)]
        page = await store.search(query_of("fox"), "ann", 1000, None)
        assert [match.thread.thread_id for match in page.matches] == threads[: -PAGE_BYTES // 900_000 : -1]
        assert page.next is not None
        rest = await store.search(query_of("fox"), "ann", 1000, page.next)
        assert [match.thread.thread_id for match in [*page.matches, *rest.matches]] == threads[::-1]
        assert rest.next is None

    async def test_a_search_takes_the_cursors_of_searches_only(self, store: ThreadStore) -> None:
        for _ in range(3):
            await fill(store, [said("fox")])
        page = await store.search(query_of("fox"), "ann", 1, None)
        other = await store.threads("ann", 1, None)
        assert page.next is not None
        for cursor in (other.next, "x", "", page.next + "x", "AAAA"):
            with pytest.raises(InvalidCursor):
                await store.search(query_of("fox"), "ann", 1, cursor)
        with pytest.raises(InvalidCursor):
            await store.threads("ann", 1, page.next)

    @pytest.mark.parametrize(
        ("metadata", "wanted", "found"),
        [
            ({"a": 5, "b": "x"}, {"a": 5}, True),
            ({"a": 5, "b": "x"}, {"a": 5, "b": "x"}, True),
            ({"a": 5, "b": "x"}, {"a": 5, "b": "y"}, False),
            ({"a": 5}, {"a": 5.0}, True),
            ({"a": 5}, {"a": "5"}, False),
            ({"a": 5}, {"b": 5}, False),
            ({"a": 1}, {"a": True}, False),
            ({"a": True}, {"a": True}, True),
            ({"a": False}, {"a": None}, False),
            ({"a": None}, {"a": None}, True),
            ({}, {"a": None}, False),
            ({"a": [5]}, {"a": 5}, False),
            ({"a": {"b": 1}}, {"a": "{}"}, False),
            ({"ä'\"\\.🦊": "ü'\"\\%"}, {"ä'\"\\.🦊": "ü'\"\\%"}, True),
            ({"a": "A"}, {"a": "a"}, False),
            ({"": ""}, {"": ""}, True),
        ],
    )
    async def test_a_list_has_threads_with_this_metadata(
        self, store: ThreadStore, metadata: Mapping[str, Any], wanted: Mapping[str, Any], found: bool
    ) -> None:
        thread_id = await fill(store, [said("fox")])
        await fill(store, [said("fox")])
        await store.change_thread(thread_id, None, ThreadChange(metadata=orjson.dumps(metadata)))
        only = ThreadFilter(metadata=wanted)
        page = await store.threads("ann", 10, None, None, only)
        assert [thread.thread_id for thread in page.threads] == [thread_id] * found
        assert await found_ids(store, "fox", only=only) == [thread_id] * found

    async def test_filters_are_combined_and_fill_pages(self, store: ThreadStore) -> None:
        threads = [await fill(store, [said("fox")]) for _ in range(12)]
        for number, thread_id in enumerate(threads):
            metadata = orjson.dumps({"third": number % 3 == 0})
            await store.change_thread(thread_id, None, ThreadChange(archived=number % 2 == 0, metadata=metadata))
        only = ThreadFilter(metadata={"third": True})
        expected = {None: [9, 6, 3, 0], True: [6, 0], False: [9, 3]}
        for archived, numbers in expected.items():
            wanted = [threads[number] for number in numbers]
            found, after = [], None
            for _ in range(10):
                page = await store.threads("ann", 1, after, archived, only)
                found += [thread.thread_id for thread in page.threads]
                after = page.next
                if after is None:
                    break
            assert found == wanted
            assert await found_ids(store, "fox", archived=archived, only=only) == wanted
            assert await found_ids(store, "bird", archived=archived, only=only) == []

    async def test_the_forks_of_a_thread_are_listed_and_counted(self, store: ThreadStore) -> None:
        parent = await fill(store, [said("fox")])
        forks = [(await store.fork(plan_of(parent))).thread_id for _ in range(4)]
        grandchild = (await store.fork(plan_of(forks[0]))).thread_id
        only = ThreadFilter(parent=parent)
        assert await found_ids(store, "fox", only=only) == forks[::-1]
        first = await store.threads("ann", 3, None, None, only)
        rest = await store.threads("ann", 3, first.next, None, only)
        assert [thread.thread_id for thread in [*first.threads, *rest.threads]] == forks[::-1]
        assert (await store.threads("bob", 3, None, None, only)).threads == []
        assert (await store.threads("ann", 3, None, None, ThreadFilter(parent=uuid7()))).threads == []
        archived = ThreadChange(archived=True, metadata=b'{"a":1}')
        await store.change_thread(forks[1], None, archived)
        both = ThreadFilter(metadata={"a": 1}, parent=parent)
        assert [one.thread_id for one in (await store.threads("ann", 9, None, True, both)).threads] == [forks[1]]
        summaries = await store.summaries([parent, forks[0], grandchild, uuid7()])
        assert [summary.forks for summary in summaries] == [4, 1, 0, 0]
        await store.delete_thread(forks[3], None)
        assert [summary.forks for summary in await store.summaries([parent])] == [3]
        await store.delete_thread(parent, None)
        listed = (await store.threads("ann", 9, None, None, only)).threads
        assert [thread.thread_id for thread in listed] == [forks[2], forks[1], forks[0]]

    async def test_a_summary_counts_open_questions(self, store: ThreadStore) -> None:
        now = datetime.now(UTC)
        turn = uuid7()

        def asks(key: str, expires_at: datetime | None = None, again: bool = False) -> tuple[UUID, NewEvent]:
            question_id = UUID(int=int.from_bytes(key.encode().ljust(16, b"-"), "big"))
            question = Question(question_id=question_id, key=key, text="?", turn=turn, expires_at=expires_at)
            return question_id, NewEvent(uuid7() if again else question_id, QUESTION_ASKED, orjson_of(question))

        async def count() -> int:
            (summary,) = await store.summaries([thread_id])
            return summary.questions

        thread_id = await fill(store, [])
        assert await count() == 0
        (first, asked), (second, also_asked) = asks("first"), asks("second", now + timedelta(hours=1))
        await store.append(thread_id, None, [asked, also_asked])
        assert await count() == 2
        await store.append(thread_id, None, [asks("first", again=True)[1]])
        await store.append(thread_id, None, [asks("late", now - timedelta(hours=1))[1], make_event(QUESTION_ASKED, 5)])
        assert await count() == 2
        await store.append(thread_id, None, [NewEvent(answer_id(first), QUESTION_ANSWERED, b"{}")])
        assert await count() == 1
        fork = (await store.fork(plan_of(thread_id))).thread_id
        await store.append(thread_id, None, [NewEvent(closing_id(second), QUESTION_CLOSED, b"{}")])
        assert await count() == 0
        unknown, of_fork, of_thread = await store.summaries([uuid7(), fork, thread_id])
        assert (unknown.questions, of_fork.questions, of_thread.questions) == (0, 1, 0)

    async def test_an_empty_filter_changes_nothing(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [])
        page = await store.threads("ann", 10, None, None, NO_FILTER)
        assert [thread.thread_id for thread in page.threads] == [thread_id]


def orjson_of(question: Question) -> bytes:
    """Return the data of the event of a question, as the service stores it."""
    return orjson.dumps(question, default=_parts)


def _parts(value: Any) -> Any:
    return {name: getattr(value, name) for name in value.__struct_fields__}
