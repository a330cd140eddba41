"""One plot of the ratios that matter, for whoever looks at one only."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.plots import Bars, Panel, draw_panels, in_order
from benchmarks.sheet import RATE, Sheet
from benchmarks.suites import chat, framework, growth

TITLE = "Requests/s on uvicorn, as ratios; jimsapi with all that is on by default, its own HTTP/1.1 protocol included"


def draw_overview(sheets: Sequence[Sheet], folder: Path) -> None:
    """Draw it as `overview.png` and `overview.svg`, if the suites that it shows were run."""
    by_name = {sheet.suite: sheet for sheet in sheets}
    if not {"framework", "chat", "growth"} <= set(by_name):
        return
    of_framework = [
        Panel(f"{case} (raw ASGI = 1)", peers(by_name["framework"], case, *FRAMEWORKS), 1.0)
        for case in (framework.GET, framework.PARTS, framework.POST)
    ]
    of_chat = [
        Panel("chat, memory store (raw ASGI, no store = 1)", peers(by_name["chat"], chat.IN_MEMORY, *IN_MEMORY), 1.0),
        Panel(f"durable chats ({chat.THEIRS} = 1)", chats(by_name["chat"])),
    ]
    limit = growth.LONG_LIMIT
    grown = Panel(f"time of a chat (little stored = 1; aim {limit:g})", large(by_name["growth"]), limit)
    draw_panels(TITLE, [*of_framework, *of_chat, grown], folder / "overview")


FRAMEWORKS = (framework.OURS, framework.OURS_ELSEWHERE, *framework.PEERS)
"""The systems beside raw ASGI; ours also with the protocol of the others, so that it is seen which of both is fast."""
IN_MEMORY = (chat.OURS, chat.FASTAPI)
"""The systems beside raw ASGI that are shown with the memory store; FastAPI has none."""


def peers(sheet: Sheet, case: str, *names: str) -> Bars:
    """Systems beside raw ASGI."""
    return in_order({name: sheet.ratios(case, name, (framework.RAW,), RATE) for name in names})


def chats(sheet: Sheet) -> Bars:
    """Ours beside jims-api, in each case that there is an aim for."""
    aims = [aim for aim in sheet.aims if aim.others == (chat.THEIRS,) and aim.unit == RATE]
    return {aim.what.removeprefix("Chat, "): sheet.ratios(aim.case, aim.system, aim.others, aim.unit) for aim in aims}


def large(sheet: Sheet) -> Bars:
    """The largest of each store beside the small, in the worst of the cases of an aim."""
    bars: dict[str, list[float]] = {}
    for aim in sheet.aims:
        ratios = sheet.ratios(aim.case, aim.system, aim.others, aim.unit)
        name = f"{aim.case.partition(',')[0]}, {aim.system}"
        if median(ratios) > median(bars.get(name, [0.0])):
            bars[name] = ratios
    return bars
