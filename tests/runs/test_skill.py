"""What an app says that it does and can do."""

from typing import Any

import pytest

from jimsapi import JimsApp, ThreadContext
from jimsapi.runs import Skill


async def answer(ctx: ThreadContext) -> None:
    ctx.send_message("hi")


def test_a_skill_has_an_identifier_made_of_its_name() -> None:
    skill = Skill("Refund an order!", "Pays money back.", tags=["money"], examples=["Refund order 7"])
    assert (skill.id, skill.tags, skill.examples) == ("refund-an-order", ("money",), ("Refund order 7",))
    assert Skill("Возврат", "Pays money back.").id == "skill"
    assert Skill("Refund", "Pays money back.", id="r-1").id == "r-1"


def test_an_app_has_a_description_and_skills() -> None:
    skills = [Skill("Refund", "Pays money back.")]
    app = JimsApp(answer, description="Sells shoes.", skills=skills)
    assert (app.description, app.skills) == ("Sells shoes.", tuple(skills))
    assert (JimsApp(answer).description, JimsApp(answer).skills) == (None, ())


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("", "what it does"), {}, ValueError),
        (("name", " "), {}, ValueError),
        ((None, "what it does"), {}, ValueError),
        (("name", "what it does"), {"tags": "money"}, TypeError),
        (("name", "what it does"), {"examples": "Refund"}, TypeError),
    ],
)
def test_a_faulty_skill_is_refused(arguments: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Skill(*arguments, **options)


def test_an_app_takes_only_skills() -> None:
    skills: Any = ["refund"]
    with pytest.raises(TypeError, match="Skill"):
        JimsApp(answer, skills=skills)
