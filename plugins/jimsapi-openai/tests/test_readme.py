"""The programs of the README work as they stand there."""

from pathlib import Path

from openai import OpenAI

from tests.docs.snippets import indented, modules
from tests.serving import Served

START, COMPLETIONS, _, RESPONSES = indented("plugins/jimsapi-openai/README.md")


def test_the_programs_chat_and_continue_a_response(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(modules("README.md")["bot.py"], encoding="utf-8")
    install, serve = START.splitlines()
    assert install == "pip install . ./plugins/jimsapi-openai"
    options = serve.replace('"$KEY"', "KEY").split()[1:]
    with Served(*options, "--openai-model", "bot", folder=tmp_path) as served:
        program = f"{COMPLETIONS}\n{RESPONSES}".replace("http://localhost:8080", served.url)
        names = {"OpenAI": OpenAI, "KEY": "KEY"}
        exec(compile(program, "README.md", "exec"), names)
        with served.client(headers={"authorization": "Bearer KEY"}) as client:
            [thread] = client.get("/api/v1/threads", params={"contact_id": "ann"}).json()["threads"]
    assert thread["preview"] == "You said: hi"
