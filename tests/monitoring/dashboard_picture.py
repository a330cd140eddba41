"""Draws the picture of the dashboard, docs/dashboard.png: `python -m tests.monitoring.dashboard_picture`.

Two servers work under load for a minute, and a real Prometheus scrapes them. The picture has the panels of
deploy/monitoring/dashboard.json, in their places, with what Prometheus returns for their queries. The script does not
need Grafana: it draws the lines itself, and Chromium makes the picture.
"""

import asyncio
import html
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.clients.find_chromium import find_chromium
from tests.docs.snippets import ROOT
from tests.monitoring.observed import (
    ADMITTED,
    CHAT,
    KEY,
    MAX_RUNS,
    RUNS,
    SECRET,
    SHAKY,
    TROUBLED,
    Observed,
    begin,
    chat,
    no_room,
    rejecting_receiver,
)
from tests.monitoring.prometheus import Prometheus, dashboard, for_servers
from tests.plugins.distributions import install

PICTURE = ROOT / "docs" / "dashboard.png"
SECONDS = 60
SPAN = "5s"
"""What `$__rate_interval` stands for."""
COLUMN, ROW, GAP = 40, 18, 5
"""Pixels of the grid of Grafana."""
COLOURS = ("#3d8b3d", "#c98a00", "#3a6fb0", "#c0392b", "#7d4fa3", "#0b7a75", "#8a6d3b", "#5b6770")
LINES_NAMED = 4
"""Lines that the legend of a panel names."""
BOT = """
import asyncio
import random
import time

from jimsapi import JimsApp

WORDS = ("This ", "is ", "the ", "answer.")


async def answer(ctx):
    text = ctx.get_last_user_message()
    await asyncio.sleep(random.uniform(0.02, 0.3))
    if text == "fail":
        raise RuntimeError("the model does not answer")
    if text == "block":
        time.sleep(1.5)
    if text == "long":
        await asyncio.sleep(8)
    ctx.usage(model="small", input_tokens=random.randrange(200, 400), output_tokens=60, cost=0.0004)
    for word in WORDS:
        await ctx.stream(word)
        await asyncio.sleep(0.02)
    ctx.send_message("".join(WORDS))


app = JimsApp(answer)
"""


class Line(NamedTuple):
    """A line of a panel: what the legend says, and the points."""

    legend: str
    points: list[tuple[float, float]]


def draw() -> None:
    """Serve, scrape, and write the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = folder / "dashboard.html"
        page.write_text(_observe(folder), encoding="utf-8")
        _photograph(page, folder)


def _observe(folder: Path) -> str:
    """Let two servers work in `folder`, and return the page that shows them."""
    (folder / "bot.py").write_text(BOT, encoding="utf-8")
    install(folder, "acme-troubled", TROUBLED)
    options = ("--app", "bot:app", "--api-key", KEY, "--max-runs", "40", "--drain-time", "2")
    webhooks = ("--webhook-secret", SECRET, "--webhook-allow-private")
    first, second = (
        Observed(*options, *webhooks, *_stores(folder, server), folder=folder) for server in ("one", "two")
    )
    prometheus = Prometheus(first.metrics_port, second.metrics_port)
    with first, second, rejecting_receiver() as receiver, prometheus:
        begun = time.time()
        asyncio.run(_load(first, second, receiver))
        names = {f"127.0.0.1:{first.metrics_port}": "server 1", f"127.0.0.1:{second.metrics_port}": "server 2"}
        return _page(prometheus, names, begun, time.time())


def _stores(folder: Path, server: str) -> tuple[str, ...]:
    """Return the options for the store of a server, and for the file that receives its events."""
    return ("--store", f"sqlite:///{server}.db", "--event-file-path", str(folder / f"{server}.jsonl"))


async def _load(first: Observed, second: Observed, receiver: str) -> None:
    """Send messages to both servers for a minute. Faults happen on the first server, and it gets a flood."""
    async with first.async_client(headers=ADMITTED) as one, second.async_client(headers=ADMITTED) as two:
        callers = [_caller(client, number, 0, SECONDS) for client in (one, two) for number in range(12)]
        crowd = [_caller(one, number, SECONDS * 0.5, SECONDS * 0.8) for number in range(100, 160)]
        await asyncio.gather(*callers, *crowd, _faults(first, one, receiver))


async def _caller(client: httpx.AsyncClient, number: int, begin_after: float, end_after: float) -> None:
    """Send messages of one contact, with pauses."""
    loop = asyncio.get_running_loop()
    until = loop.time() + end_after
    await asyncio.sleep(begin_after)
    chance = random.Random(number)
    while loop.time() < until:
        message = {"contact_id": f"{number}", "message": "fail" if chance.random() < 0.03 else "hi"}
        with suppress(httpx.TransportError):  # on a busy machine, the server may close a connection first
            await client.post(CHAT if number % 3 else f"{CHAT}/stream", json=message)
        await asyncio.sleep(chance.expovariate(4))


async def _faults(first: Observed, client: httpx.AsyncClient, receiver: str) -> None:
    """What goes wrong on the first server."""
    await begin(client, "long", "long")
    await client.post(RUNS, json={"contact_id": "called", "message": "hi", "webhook_url": receiver})
    for _ in range(MAX_RUNS):
        await begin(client, "long", "hi")
    await asyncio.sleep(SECONDS * 0.3)
    await chat(client, "block", "block")
    await asyncio.sleep(SECONDS * 0.1)
    for _ in range(5):
        await client.post(CHAT, headers=SHAKY, json={"contact_id": "ann", "message": "hi"})
        await asyncio.sleep(1)
    await asyncio.sleep(SECONDS * 0.3)
    with no_room(first):
        await asyncio.sleep(3)


def _page(prometheus: Prometheus, names: Mapping[str, str], begin: float, end: float) -> str:
    """The page with all panels. `names` are the names of the servers by their addresses."""
    panels = dashboard()["panels"]
    boxes = []
    for panel in panels:
        place = panel["gridPos"]
        width, height = place["w"] * COLUMN - GAP, place["h"] * ROW - GAP
        if panel["type"] == "row":
            content = f"<h2>{html.escape(panel['title'])}</h2>"
        elif panel["type"] == "stat":
            content = _title(panel) + _numbers(_lines(prometheus, names, panel, end - 1, end, 1))
        else:
            lines = _lines(prometheus, names, panel, begin, end, 0.5)
            content = _title(panel) + _plot(panel, lines, begin, end, width, height)
        position = f"left:{place['x'] * COLUMN}px;top:{place['y'] * ROW}px;width:{width}px;height:{height}px"
        boxes.append(f'<div class="{panel["type"]}" style="{position}">{content}</div>')
    return f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style>{''.join(boxes)}"


_STYLE = """
body { margin: 4px; background: #f4f5f5; font: 11px "DejaVu Sans", sans-serif; color: #24292e }
div { position: absolute; box-sizing: border-box } h2, h3 { margin: 0; font-size: 12px } h2 { padding: 2px }
.timeseries, .stat { background: #fff; border: 1px solid #dcdfe2; padding: 5px 7px; overflow: hidden }
.stat p { margin: 4px 0; font-size: 17px } p { margin: 0; line-height: 12px } svg { display: block }
small { color: #5b6770; font-size: 10px; margin-right: 9px; white-space: nowrap }
"""


def _title(panel: Any) -> str:
    return f"<h3>{html.escape(panel['title'])}</h3>"


def _lines(
    prometheus: Prometheus, names: Mapping[str, str], panel: Any, begin: float, end: float, step: float
) -> list[Line]:
    """The lines of a panel that have points. `names` are the names of the servers by their addresses."""
    lines = []
    for target in panel["targets"]:
        for series in prometheus.query_range(for_servers(target["expr"], SPAN), begin, end, step):
            legend: str = target["legendFormat"]
            for name, value in series["metric"].items():
                legend = legend.replace(f"{{{{{name}}}}}", names.get(value, value))
            points = [(moment, float(value)) for moment, value in series["values"] if value != "NaN"]
            if points:
                lines.append(Line(legend, points))
    return lines


def _numbers(lines: Sequence[Line]) -> str:
    numbers = [f"{line.points[-1][1]:.0f} <small>{html.escape(line.legend)}</small>" for line in lines]
    return f"<p>{' '.join(numbers)}</p>"


def _plot(panel: Any, lines: Sequence[Line], begin: float, end: float, width: int, height: int) -> str:
    """The lines of a panel over time, with their legend."""
    left, right, top, bottom = 44, width - 30, 6, height - 62
    highest = _round_up(max((value for line in lines for _, value in line.points), default=0.0) or 1.0)

    def x(moment: float) -> float:
        return left + (right - left) * (moment - begin) / (end - begin)

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / highest

    parts = []
    for value in (0.0, highest / 2, highest):
        label = _amount(value, panel["fieldConfig"]["defaults"]["unit"])
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y(value):.0f}" y2="{y(value):.0f}" stroke="#e4e7e9"/>')
        parts.append(f'<text x="{left - 4}" y="{y(value) + 3:.0f}" text-anchor="end" font-size="9">{label}</text>')
    for seconds in range(0, SECONDS + 1, 20):
        place = f'x="{x(begin + seconds):.0f}" y="{bottom + 12}"'
        parts.append(f'<text {place} text-anchor="middle" font-size="9">{seconds} s</text>')
    names = []
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(moment):.1f},{y(value):.1f}" for moment, value in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        names.append(f'<small><b style="color:{colour}">━</b> {html.escape(line.legend)}</small>')
    if len(lines) > LINES_NAMED:
        names[LINES_NAMED:] = [f"<small>and {len(lines) - LINES_NAMED} more</small>"]
    return f'<svg width="{width - 16}" height="{height - 46}">{"".join(parts)}</svg><p>{"".join(names)}</p>'


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 with zeros."""
    step = 1e-6
    while True:
        for factor in (1, 2, 5):
            if value <= step * factor:
                return step * factor
        step *= 10


def _amount(value: float, unit: str) -> str:
    """A number with its unit, as short as on an axis."""
    match unit:
        case "s" if 0 < value < 1:
            return f"{value * 1000:g} ms"
        case "s":
            return f"{value:g} s"
        case "bytes":
            return f"{value / 1e6:g} MB"
        case "currencyUSD":
            return f"${value:g}"
        case "reqps" | "ops":
            return f"{value:g}/s"
    return f"{value:g}"


def _photograph(page: Path, folder: Path) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/browser"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard()["panels"])
    size = f"--window-size={24 * COLUMN + 2},{rows * ROW + 6}"
    subprocess.run(
        [find_chromium(os.environ), *options, size, f"--screenshot={PICTURE}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=60,
    )


if __name__ == "__main__":
    draw()
