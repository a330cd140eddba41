"""The pipeline that reads files, by its context alone. The plugin for files tests it over a real server."""

import pytest

from examples.spreadsheets import answer
from examples.spreadsheets.table import NotATable, read_table
from jimsapi import ThreadContext

ORDERS = b"number,item,unit price,price\n17,teapot,20,25\n18,kettle,30,40\n19,mug,10,12.5\n"


def ask(question: str, **files: bytes) -> list[str]:
    """The messages that answer a question about files, whose endings follow a `_` in their names here."""
    named = {name.replace("_", "."): content for name, content in files.items()}
    ctx = ThreadContext.for_test(question, files=named)
    answer(ctx)
    return [event.event_data["content"] for event in ctx.outgoing_events if event.event_type.startswith("comm.")]


@pytest.mark.parametrize(
    ("question", "answered"),
    [
        ("What is the sum of price?", "The sum of price is 77.5."),
        ("And the average of unit price?", "The average of unit price is 20."),
        ("The highest price, please", "The highest price is 40."),
        ("minimum price", "The lowest price is 12.5."),
        ("How many orders are there?", "There are 3 rows."),
        ("What is the total of item?", "The column item has not only numbers."),
    ],
)
def test_a_question_about_a_table_is_answered(question: str, answered: str) -> None:
    assert ask(question, orders_csv=ORDERS) == [f"orders.csv: {answered}"]


def test_a_question_that_is_not_understood_gets_what_can_be_asked() -> None:
    [answered] = ask("What is the meaning of life?", orders_csv=ORDERS)
    assert answered.endswith("The columns are number, item, unit price, price.")
    assert ask("What is the sum of price?") == ["Send me a CSV file or a text with your question."]


def test_the_lines_of_a_text_are_found() -> None:
    log = b"Start\nError: no kettle\nAn error again\n"
    assert ask('Where is "error"?', log_txt=log) == [
        "log.txt: Lines with “error”: 2.\nError: no kettle\nAn error again"
    ]
    assert ask("What is this?", log_txt=log)[0].startswith("log.txt: It has 3 lines and 7 words.")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe\0", "it is not a text in UTF-8."),
        (b"", "it is not a table: it is empty."),
        (b"a,b\n1\n", "it is not a table: row 1 has 1 values, and the header has 2."),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(content: bytes, reason: str) -> None:
    assert ask("How many?", broken_csv=content, orders_csv=ORDERS) == [
        f"broken.csv: {reason}",
        "orders.csv: There are 3 rows.",
    ]


def test_each_file_is_a_source_of_the_answer() -> None:
    ctx = ThreadContext.for_test("How many?", files={"a.csv": ORDERS, "b.csv": ORDERS})
    answer(ctx)
    sources = [event.event_data["title"] for event in ctx.outgoing_events if event.event_type == "answer.source"]
    assert sources == ["a.csv", "b.csv"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_may_have_other_separators_and_quotes(separator: str) -> None:
    table = read_table(f'a{separator}b\n"1{separator}2"{separator}3\n\n')
    assert (table.columns, table.rows) == (["a", "b"], [[f"1{separator}2", "3"]])


def test_a_value_without_an_end_is_not_a_table() -> None:
    with pytest.raises(NotATable):
        read_table("a\n" + "x" * 200_000)
