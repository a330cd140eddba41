"""Understands a question about a table or a text, and answers it. A model would do more; this needs none."""

import re
from collections.abc import Callable, Sequence

from .table import Table

Sums = Callable[[Sequence[float]], float]
_QUESTIONS: dict[str, tuple[str, Sums]] = {
    "sum|total": ("The sum of {}", sum),
    "average|mean": ("The average of {}", lambda numbers: sum(numbers) / len(numbers)),
    "highest|largest|max(imum)?": ("The highest {}", max),
    "lowest|smallest|min(imum)?": ("The lowest {}", min),
}
HELP = "Ask for the sum, the average, the highest or the lowest of a column, or how many rows there are."


def answer_about_table(question: str, table: Table) -> str:
    """Return the answer to a question such as “What is the sum of price?”."""
    if re.search(r"\bhow many\b|\bcount\b", question, re.IGNORECASE):
        return f"There are {len(table.rows)} rows."
    asked = next((found for words, found in _QUESTIONS.items() if re.search(rf"\b({words})\b", question.lower())), None)
    name = _named(question, table.columns)
    if asked is None or name is None:
        return f"{HELP} The columns are {', '.join(table.columns)}."
    text, compute = asked
    try:
        numbers = [float(value) for value in table.column(name) if value.strip()]
        return f"{text.format(name)} is {compute(numbers):,.10g}."
    except (ValueError, ZeroDivisionError):
        return f"The column {name} has not only numbers."


def answer_about_text(question: str, content: str) -> str:
    """Return the lines with the words that the question has in quotes; without quotes, how long the text is."""
    quoted = re.search(r'["“](.+?)["”]', question)
    lines = content.splitlines()
    if quoted is None:
        return f"It has {len(lines)} lines and {len(content.split())} words. Quote words to find their lines."
    found = [line.strip() for line in lines if quoted[1].lower() in line.lower()]
    return f"Lines with “{quoted[1]}”: {len(found)}." + "".join(f"\n{line}" for line in found[:10])


def _named(question: str, columns: Sequence[str]) -> str | None:
    """Return the column that a question names; the longest name, if one is a part of another."""
    names = [name for name in columns if re.search(rf"\b{re.escape(name)}\b", question, re.IGNORECASE)]
    return max(names, key=len, default=None)
