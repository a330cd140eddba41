"""The commands of the README upload, use, read and delete a file."""

import json
import os
import subprocess
from pathlib import Path

from tests.docs.snippets import blocks, indented, modules
from tests.serving import Served

PAGE = "plugins/jimsapi-files/README.md"
START, UPLOAD, READ_AND_DELETE, ASK, _FILES = indented(PAGE)


def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "bot.py").write_text(modules("README.md")["bot.py"], encoding="utf-8")
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    options = START.splitlines()[1].replace('"$KEY"', "KEY").replace("/var/lib/jimsapi/files", str(folder)).split()[1:]
    with Served(*options, folder=tmp_path) as served:

        def shell(code: str, file_id: str = "") -> bytes:
            code = code.replace("http://localhost:8080", served.url).replace("6f0c…", file_id)
            return subprocess.run(
                ["bash", "-euc", code.replace("curl", "curl --silent --fail")],
                cwd=tmp_path,
                env={**os.environ, "KEY": "KEY"},
                capture_output=True,
                check=True,
                timeout=30,
            ).stdout

        uploaded = json.loads(shell(UPLOAD))
        [shown] = [json.loads(code) for code in blocks(PAGE, "json")]
        assert uploaded.keys() == shown.keys()
        assert (uploaded["name"], uploaded["type"]) == (shown["name"], shown["type"])
        assert json.loads(shell(ASK, uploaded["file_id"]))["assistant_messages"] == ["You said: What is this?"]
        read, delete = READ_AND_DELETE.splitlines()
        assert shell(read, uploaded["file_id"]) == (tmp_path / "cat.png").read_bytes()
        shell(delete, uploaded["file_id"])
        with served.client(headers={"authorization": "Bearer KEY"}) as client:
            assert client.get(f"/api/v1/files/{uploaded['file_id']}").status_code == 404
