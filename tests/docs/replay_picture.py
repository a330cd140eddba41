"""Draws the picture of the page on replays, docs/replay.png: `python -m tests.docs.replay_picture`.

The apps of the page answer 50 questions, the first version live and the next one in a replay. Chromium draws the page
that `jimsapi replay --html` writes.
"""

import os
import subprocess
import tempfile
from pathlib import Path

from tests.clients.find_chromium import find_chromium
from tests.command import run_command
from tests.docs.snippets import ROOT, modules
from tests.serving import Served

PICTURE = ROOT / "docs" / "replay.png"
QUESTIONS = (
    "Do you have a kettle?",
    "I need a big mug for my coffee.",
    "Do you deliver?",
    "Is there a teapot left?",
    "How many of this mug can I get?",
    "Hello!",
    "What does a mug cost?",
    "Thank you. And a kettle?",
    "What does the kettle cost?",
    "Goodbye.",
)
TURNS = 50
WIDTH, HEIGHT = 1000, 942


def draw() -> None:
    """Hold the conversation, replay it, and write the picture."""
    with tempfile.TemporaryDirectory() as name:
        _photograph(write_page(Path(name)), Path(name))


def write_page(folder: Path) -> Path:
    """Hold the conversation in `folder`, replay it, and return the page that shows the differences."""
    for module, code in modules("docs/replay.md").items():
        (folder / module).write_text(code, encoding="utf-8")
    shop = Served("--app", "shop:app", "--store", "sqlite:///shop.db", folder=folder)
    with shop, shop.client() as client:
        for number in range(TURNS):
            message = {"contact_id": "ann", "message": QUESTIONS[number % len(QUESTIONS)]}
            client.post("/api/v1/chat", json=message).raise_for_status()
    arguments = ("--contact-id", "ann", "--store", "sqlite:///shop.db", "--app", "next_shop:app")
    ran = run_command("replay", *arguments, "--html", "replay.html", cwd=folder)
    assert ran.returncode == 1, ran.stderr
    return folder / "replay.html"


def _photograph(page: Path, folder: Path) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/browser"]
    size = f"--window-size={WIDTH},{HEIGHT}"
    subprocess.run(
        [find_chromium(os.environ), *options, size, f"--screenshot={PICTURE}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=60,
    )


if __name__ == "__main__":
    draw()
