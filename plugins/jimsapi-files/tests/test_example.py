"""The example that reads files, over a real server: a client uploads files, and asks about them."""

import json
import subprocess
from pathlib import Path

from jimsapi.client import Client
from tests.docs.snippets import blocks
from tests.serving import ROOT, Served

ORDERS = (ROOT / "examples" / "spreadsheets" / "orders.csv").read_bytes()


def test_a_person_asks_about_uploaded_files_and_asks_again(folder: Path) -> None:
    options = ("--app", "examples.spreadsheets:app", "--files-store", f"file://{folder}")
    with Served(*options) as served, Client(served.url) as client:
        table = client.upload(ORDERS, "orders.csv", contact_id="ann")
        text = client.upload(b"one kettle\ntwo mugs\n", "notes.txt", contact_id="ann")
        asked = client.chat("What is the sum of price?", contact_id="ann", files=[table.file_id])
        assert asked.assistant_messages == ["orders.csv: The sum of price is 77."]
        again = client.chat("And the highest price?", contact_id="ann")
        assert again.assistant_messages == ["orders.csv: The highest price is 40."]
        both = client.chat('How many "mug"?', contact_id="ann", files=[table.file_id, text.file_id])
        assert both.assistant_messages == ["orders.csv: There are 3 rows.", "notes.txt: Lines with “mug”: 1.\ntwo mugs"]
        with served.client() as http:
            http.delete(f"/api/v1/files/{table.file_id}").raise_for_status()
        gone = client.chat("How many?", contact_id="ann")
        assert gone.assistant_messages[0] == "orders.csv: it was deleted."


def test_the_commands_of_its_readme_ask_about_a_file(folder: Path) -> None:
    [command] = blocks("examples/spreadsheets/README.md", "sh")
    with Served("--app", "examples.spreadsheets:app", "--files-store", f"file://{folder}") as served:
        command = command.replace("http://localhost:8080", served.url)
        done = subprocess.run(["bash", "-euc", command], cwd=ROOT, capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout)["assistant_messages"] == ["orders.csv: The sum of price is 77."]
