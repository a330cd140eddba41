"""`jimsapi auth explain`: what each provider says of a token, without showing it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from jimsapi.cli import main
from tests.plugins.distributions import install

TOKEN = "a-token-that-nobody-may-see"

SAYS = """
    from jimsapi import *

    class Says:
        def __init__(self, name, word):
            self.name, self.word = name, word
            self.entered = False

        async def __aenter__(self):
            self.entered = True
            return self

        async def __aexit__(self, *exception):
            self.entered = False

        async def authenticate(self, connection):
            assert self.entered
            if connection.headers.get("authorization") != "Bearer a-token-that-nobody-may-see":
                return None
            match self.word:
                case "admit": return Identity("ann", contact_id="ann", scopes=["chat"])
                case "deny": raise AccessDenied("ann has left")
                case "break": raise RuntimeError(connection.headers.get("authorization"))
                case "away": raise AuthUnavailable("the directory is away")

    @hookimpl
    def jimsapi_auth_provider():
        return Says("NAME", "WORD")
"""


@pytest.fixture
def token_file(site: Path) -> Iterator[str]:
    path = site / "token"
    path.write_text(f"  {TOKEN}\n")
    before = logging.getLogger("jimsapi").handlers[:]
    yield str(path)
    logging.getLogger("jimsapi").handlers[:] = before


def provider(site: Path, name: str, word: str) -> None:
    install(site, f"says-{name}", SAYS.replace("NAME", name).replace("WORD", word))


def explain(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[list[str], str]:
    with pytest.raises(SystemExit) as exit_:
        main(["auth", "explain", *options])
    out, err = capsys.readouterr()
    assert exit_.value.code == 0, err
    assert TOKEN not in out + err
    return out.splitlines(), err


def test_each_provider_s_answer_is_told_in_order_and_who_lets_in(
    site: Path, token_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, word in (("a", "pass"), ("b", "deny"), ("c", "admit"), ("d", "away"), ("e", "break")):
        provider(site, name, word)
    said, reasons = explain(capsys, "--token-file", token_file, "--api-key", "k", "--auth-order", "c")
    assert said == [
        "1. c (says-c 1.0): admitted, as 'ann', for contact 'ann' alone, scopes: chat",
        said[1],
        "3. a (says-a 1.0): not its kind of credentials, so it leaves the request to the others",
        "4. b (says-b 1.0): denied",
        "5. d (says-d 1.0): unavailable",
        "6. e (says-e 1.0): unavailable",
        "A request with this token is admitted by c.",
    ]
    assert said[1].startswith("2. key (jimsapi ")
    assert said[1].endswith("): invalid")
    assert "ann has left" in reasons
    assert "the directory is away" in reasons


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("pass",), "401 Unauthorized"),
        (("away", "deny"), "403 Forbidden"),
        (("pass", "away"), "503 Authentication is unavailable"),
    ],
)
def test_where_nobody_admits_it_says_what_the_caller_gets(
    site: Path, token_file: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], answer: str
) -> None:
    for name, word in zip("abc", words, strict=False):
        provider(site, name, word)
    said, _ = explain(capsys, "--token-file", token_file, "--api-key", "k")
    assert said[-1] == f"A request with this token is answered {answer}."


def test_the_right_key_is_told_and_neither_app_nor_store_is_touched(
    site: Path, token_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said, _ = explain(capsys, "--token-file", token_file, "--api-key", TOKEN, "--app", "not.there:app")
    assert said[0].endswith("admitted, as 'key', for any contact, every scope, also those of plugins")
    assert not (site / "jims.db").exists()


def test_a_public_server_is_told_as_one(site: Path, token_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, "--token-file", token_file)[0] == [
        "No auth provider is configured: every request is admitted, with any token or none."
    ]


def test_an_empty_token_file_is_one_clear_line(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "token").write_text("\n")
    with pytest.raises(SystemExit) as exit_:
        main(["auth", "explain", "--token-file", str(site / "token")])
    assert exit_.value.code == 1
    assert capsys.readouterr().err.endswith("token is empty: put the token in it\n")
