"""`jimsapi connect`: what it prints for a real server without plugins, and for servers that lie."""

import gzip
import json
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from jimsapi.builtin.keys_file import KeysFile
from jimsapi.cli.client_setup.address import ENDPOINTS, parse_address
from jimsapi.cli.client_setup.report import TITLES
from jimsapi.cli.main import main
from tests.command import ROOT, run_command
from tests.serving import Served

KEY = "the-key-of-a-test-0123456789"
SCRIPTED = ("--app", "tests.apps.scripted:app", "--plugins", "none")


@dataclass
class Ran:
    """How the command ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The output as JSON."""
        return json.loads(self.out)

    def example(self, client: str) -> str:
        """The text for a client."""
        found = re.search(rf"^{re.escape(client)}:\n\n```\w+\n(.*?)\n```$", self.out, re.DOTALL | re.MULTILINE)
        assert found is not None, self.out
        return found[1]


Connect = Callable[..., Ran]


@pytest.fixture
def connect(site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Runs the command in this process, in an empty folder, without `JIMS_*` but those that are given."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def run(*arguments: str, **env: str) -> Ran:
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main(["connect", *arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def public() -> Iterator[Served]:
    with Served(*SCRIPTED) as server:
        yield server


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Keys by name, and the file that has them: `file`."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    store = KeysFile(path)
    return {
        "all": store.add("all")[0],
        "ann": store.add("ann", contact_id="ann", scopes=("chat",))[0],
        "reader": store.add("reader", scopes=("threads",))[0],
        "file": str(path),
    }


@pytest.fixture(scope="module")
def guarded(keys: dict[str, str]) -> Iterator[Served]:
    """A server that needs a key."""
    with Served(*SCRIPTED, "--keys-file", keys["file"]) as server:
        yield server


def shell(command: str, **env: str) -> Any:
    """The answer of the server to an example of curl."""
    ran = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **env}, timeout=30
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


# Servers that need no key, or one.


def test_a_public_server_needs_no_key_and_no_example_has_one(connect: Connect, public: Served) -> None:
    ran = connect(public.url)
    assert (ran.status, ran.err) == (0, "")
    assert "The server is open to everybody." in ran.out
    assert "Authorization" not in ran.out
    assert shell(ran.example("curl"))["assistant_messages"] == ["You said: Hello"]


def test_what_is_not_served_is_named_with_how_to_get_it(connect: Connect, public: Served) -> None:
    lines = connect(public.url).out.splitlines()
    for extra, title in TITLES.items():
        assert f"- {title}: install the plugin beside the server: pip install 'jimsapi[{extra}]'" in lines
        assert f"## {title}" not in lines


def test_every_protocol_has_an_extra_of_its_name() -> None:
    extras = re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert TITLES.keys() <= {*extras}


def test_an_accepted_key_is_not_printed_and_the_examples_read_it_from_a_variable(
    connect: Connect, guarded: Served, keys: dict[str, str]
) -> None:
    ran = connect(guarded.url, JIMS_API_KEY=keys["all"])
    assert (ran.status, ran.err) == (0, "")
    assert "The server accepts the key." in ran.out
    assert keys["all"] not in ran.out
    answer = shell(ran.example("curl"), JIMS_API_KEY=keys["all"])
    assert answer["assistant_messages"] == ["You said: Hello"]
    assert shlex.quote(guarded.url) in ran.example("A chat in this terminal")


def test_without_a_key_only_the_lines_about_access_differ(
    connect: Connect, guarded: Served, keys: dict[str, str]
) -> None:
    without, with_key = connect(guarded.url), connect(guarded.url, JIMS_API_KEY=keys["all"])
    assert (without.status, without.err) == (0, "")
    lines, others = without.out.splitlines(), with_key.out.splitlines()
    [access, bound] = [line for line in lines if line not in others]
    assert access.startswith("The server needs a key, and none was given")
    assert bound == "If your key is bound to one contact, omit `contact_id`."
    assert [line for line in others if line not in lines] == [line for line in others if "accepts the key" in line]
    assert without.example("curl") == with_key.example("curl")


@pytest.mark.parametrize("how", ["flag", "file", "variable", "file in a variable", "before the name"])
def test_the_key_comes_from_a_flag_a_file_or_the_environment(
    how: str, guarded: Served, keys: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(f"# of the test\n{keys['all']}\n")
    before, options, env = {
        "flag": ((), ("--api-key", keys["all"]), {"JIMS_API_KEY": "another"}),
        "file": ((), ("--api-key-file", str(file)), {"JIMS_API_KEY": "another"}),
        "variable": ((), (), {"JIMS_API_KEY": keys["all"]}),
        "file in a variable": ((), (), {"JIMS_API_KEY_FILE": str(file)}),
        "before the name": (("--api-key", keys["all"]), (), {}),
    }[how]
    ran = run_command(*before, "connect", guarded.url, *options, cwd=tmp_path, env=env)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "The server accepts the key." in ran.stdout
    assert keys["all"] not in ran.stdout


def test_a_refused_key_ends_it_with_1_and_what_to_do(connect: Connect, guarded: Served) -> None:
    ran = connect(guarded.url, "--api-key", KEY)
    assert ran.status == 1
    expected = "the server refuses the key (401 Unauthorized): give another key with --api-key-file, or in JIMS_API_KEY"
    assert ran.err == f"jimsapi: {expected}\n"
    assert KEY not in ran.out


def test_a_key_that_may_send_no_messages_ends_it_with_1(
    connect: Connect, guarded: Served, keys: dict[str, str]
) -> None:
    ran = connect(guarded.url, JIMS_API_KEY=keys["reader"])
    assert ran.status == 1
    assert "no messages (403 These credentials lack the scope chat): give a key with the scope chat" in ran.err


def test_an_example_for_a_bound_key_names_no_contact(connect: Connect, guarded: Served, keys: dict[str, str]) -> None:
    ran = connect(guarded.url, JIMS_API_KEY=keys["ann"])
    assert "contact_id" not in ran.out
    assert shell(ran.example("curl"), JIMS_API_KEY=keys["ann"])["assistant_messages"] == ["You said: Hello"]


def test_a_key_that_no_header_can_have_is_refused_without_being_shown(connect: Connect, guarded: Served) -> None:
    for key in ("a\nsecret", "a secret", "sécret"):
        ran = connect(guarded.url, "--api-key", key)
        assert (ran.status, ran.out) == (1, "")
        assert "cret" not in ran.err.replace("characters", "")


def test_the_json_has_the_same_on_one_line_of_ascii(connect: Connect, guarded: Served, keys: dict[str, str]) -> None:
    ran = connect(guarded.url, "--json", JIMS_API_KEY=keys["all"])
    assert re.fullmatch("[ -~]+\n", ran.out)
    found = ran.value
    assert (found["url"], found["access"], found["problems"]) == (guarded.url, "key_accepted", [])
    assert found["protocols"].keys() == TITLES.keys()
    assert {one["served"] for one in found["protocols"].values()} == {False}
    curl = found["chat"]["examples"][0]
    assert shell(curl["text"], JIMS_API_KEY=keys["all"])["assistant_messages"] == ["You said: Hello"]
    refused = connect(guarded.url, "--json", "--api-key", KEY)
    assert (refused.status, refused.value["access"]) == (1, "key_refused")
    assert refused.err == f"jimsapi: {refused.value['problems'][0]}\n"


def test_asking_begins_no_run_and_stores_nothing(connect: Connect, keys: dict[str, str], tmp_path: Path) -> None:
    with Served(*SCRIPTED, "--keys-file", keys["file"]) as server, server.client() as client:
        connect(server.url, JIMS_API_KEY=keys["all"])
        connect(server.url)
        found = client.get("/api/v1/contacts", headers={"authorization": f"Bearer {keys['all']}"})
        assert found.json()["contacts"] == []


# URLs.


@pytest.mark.parametrize("end", ["", "/", "//", "/docs", "/api/v1", "/api/v1/chat", "/v1", "/mcp", "/ag-ui/"])
def test_the_url_of_an_endpoint_is_as_good_as_that_of_the_server(connect: Connect, public: Served, end: str) -> None:
    ran = connect(public.url + end)
    assert ran.status == 0
    assert ran.out.splitlines()[0] == f"# {public.url}"


def test_a_server_below_a_path_is_asked_below_it(connect: Connect) -> None:
    with Served(*SCRIPTED, "--root-path", "/bot", "--root-path-kept") as server:
        ran = connect(f"{server.url}/bot/")
        assert (ran.status, ran.out.splitlines()[0]) == (0, f"# {server.url}/bot")
        assert shell(ran.example("curl"))["assistant_messages"] == ["You said: Hello"]
        lost = connect(f"{server.url}/other")
        assert lost.status == 1
        assert "if a proxy shows the server below a path (--root-path), add that to the URL" in lost.err


def test_the_user_and_the_password_of_a_url_are_not_printed(connect: Connect, public: Served) -> None:
    url = public.url.replace("//", "//the-user:the-password@")
    for options in ((), ("--json",)):
        ran = connect(url, *options)
        assert ran.status == 0
        assert "the-" not in ran.out.replace("the-key", "") + ran.err
        assert "the user and the password of the URL are left out" in ran.out
    gone = connect("http://the-user:the-password@127.0.0.1:1")
    assert gone.status == 1
    assert "the-" not in gone.out + gone.err


INVALID = [
    "localhost:8080",
    "ftp://the-host",
    "http://",
    "http://the-host/?the-query",
    "http://the-host#the-end",
    "http://the-user:the-pass/word@host",
    "http://the-host:99999",
    "http://the-host/\x1b[2J",
    "the-\x1b]0;title\x07",
]


@pytest.mark.parametrize("url", INVALID)
def test_an_invalid_url_is_wrong_usage_and_is_not_repeated(connect: Connect, url: str) -> None:
    ran = connect(url)
    assert (ran.status, ran.out) == (2, "")
    assert "the-" not in ran.err
    assert "\x1b" not in ran.err
    assert "URL" in ran.err


def test_no_character_of_a_path_ends_a_string_or_a_command_of_an_example() -> None:
    address = parse_address("https://host/a'b\"c`d<e>${f} \\")
    assert re.fullmatch(r"https://host/[A-Za-z0-9%$]+", address.url)
    assert address.url.isascii()
    assert all(parse_address(f"https://host/bot{path}").without_endpoint for path in ENDPOINTS)


# Servers that cannot be reached.


def test_a_port_on_which_nothing_listens_is_named(connect: Connect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ran = connect(url)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"jimsapi: {url} does not answer (")
    assert ran.err.endswith("): start the server, or check the host and the port in the URL\n")


def test_errors_of_tls_say_what_to_do(connect: Connect, public: Served, tmp_path: Path) -> None:
    authority = trustme.CA()
    chain, root = tmp_path / "chain.pem", tmp_path / "root.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(chain))
    authority.cert_pem.write_to_path(str(root))
    with Served(*SCRIPTED, "--ssl-certfile", str(chain)) as server:
        url = server.url.replace("http:", "https:")
        untrusted = connect(url)
        assert untrusted.status == 1
        assert untrusted.err.endswith("or name the file of its certificate authority in SSL_CERT_FILE\n")
        trusted = connect(url, SSL_CERT_FILE=str(root))
        assert (trusted.status, trusted.out.splitlines()[0]) == (0, f"# {url}")
        without_tls = connect(server.url)
        assert without_tls.status == 1
        assert without_tls.err.endswith("begin the URL with https://\n")
    with_tls = connect(public.url.replace("http:", "https:"))
    assert with_tls.status == 1
    assert with_tls.err.endswith("begin the URL with http://\n")


# Servers that lie. They are asked as all others are.


@dataclass
class Answer:
    """What a server sends. `endless` repeats the body until the client leaves, and `silent` sends nothing."""

    status: int
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False
    silent: bool = False


def as_json(status: int, value: Any, **headers: str) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"content-type": "application/json", **headers})


NOT_FOUND = as_json(404, {"detail": "Not Found"})
FAULTS = as_json(422, {"detail": [{"loc": ["body", "contact_id"]}, {"loc": ["body", "message"]}]})
TRUE = {("GET", "/api/v1/chat"): as_json(405, {}, allow="OPTIONS, POST"), ("POST", "/api/v1/chat"): FAULTS}
"""How a server of jimsapi without a key answers."""


@dataclass
class Liar:
    """A server whose answers are given by method and path; `requests` are those that it got.

    After a `#`, the path may have the method of JSON-RPC.
    """

    url: str
    answers: dict[tuple[str, str], Answer]
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]


@contextmanager
def lying(answers: dict[tuple[str, str], Answer], otherwise: Answer = NOT_FOUND) -> Iterator[Liar]:
    """A server that answers as it is told."""
    left = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.read_and_answer()

        def do_POST(self) -> None:
            self.read_and_answer()

        def read_and_answer(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"] or 0))
            liar.requests.append((self.command, self.path, self.headers["authorization"]))
            self.close_connection = True
            method = json.loads(sent).get("method") if sent else None
            places = ((self.command, f"{self.path}#{method}"), (self.command, self.path))
            answer = next((liar.answers[place] for place in places if place in liar.answers), otherwise)
            if answer.silent:
                left.wait(30)
                return
            with suppress(OSError):  # the client has left
                self.send_all(answer)

        def send_all(self, answer: Answer) -> None:
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(answer.body)
            while answer.endless and not left.is_set():
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads this log."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that has left is no error."""

    with Server(("127.0.0.1", 0), Handler) as server:
        liar = Liar(f"http://127.0.0.1:{server.server_address[1]}", dict(answers))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield liar
        finally:
            left.set()
            server.shutdown()
            thread.join()


HARMLESS = re.compile(r"[ -~\n]*")

TEXTS = [
    b"\x1b[31m\x1b]0;title\x07\x9b2J" * 40_000,
    json.dumps({"detail": "\x1b[2J\u202e\x9b\b\x00" * 1000}).encode(),
    '{"detail": "caf\u00e9"}'.encode("utf-16"),
    b"\xff\xfe\xfd",
    b"[" * 500_000,
    b'{"detail": "\\ud800", "data": [{"id": "\\udfff"}]}',
    b'{"detail": ' + b"9" * 5000 + b"}",
    b"null",
    b"",
]


ROUTES = [
    ("GET", "/api/v1/chat"),
    ("POST", "/api/v1/chat"),
    ("GET", "/readyz"),
    ("GET", "/mcp"),
    ("GET", "/.well-known/agent-card.json"),
    ("GET", "/v1/models"),
    ("GET", "/ai-sdk/chat"),
]


CHARSETS = ["application/json", "text/html; charset=utf-16", "application/json; charset=\xe4", "text/event-stream"]


@pytest.mark.parametrize("body", TEXTS, ids=range(len(TEXTS)))
def test_what_a_server_sends_does_nothing_to_a_terminal(connect: Connect, body: bytes) -> None:
    for number, charset in enumerate(CHARSETS):
        answer = Answer((200, 401, 405, 404)[number], body, {"content-type": charset, "allow": "POST"})
        with lying({}, answer) as everywhere, lying({**dict.fromkeys(ROUTES, answer), **TRUE}) as behind:
            for liar in (everywhere, behind):
                ran = connect(liar.url, *(["--json"] if number % 2 else []))
                assert HARMLESS.fullmatch(ran.out + ran.err)
                assert len(ran.out + ran.err) < 20_000
            assert connect(everywhere.url).status == 1


@pytest.mark.parametrize("value", ["\x1b[2J", "a\x00b", "\xe9\xff", "x" * 60_000, "x" * 200_000])
def test_a_head_that_no_server_sends_does_nothing_to_a_terminal(connect: Connect, value: str) -> None:
    head = Answer(405, headers={"allow": f"POST, {value}", "www-authenticate": value, "location": value})
    for answers in ({}, dict.fromkeys(ROUTES, head), {**dict.fromkeys(ROUTES, head), **TRUE}):
        with lying(answers, head) as liar:
            ran = connect(liar.url)
        assert HARMLESS.fullmatch(ran.out + ran.err)
        assert len(ran.out + ran.err) < 20_000


@pytest.mark.parametrize("route", ROUTES)
def test_an_endless_answer_is_not_read_to_its_end(connect: Connect, route: tuple[str, str]) -> None:
    endless = Answer(200, b'{"detail": "more"}' * 1000, endless=True)
    with lying({**TRUE, route: endless}) as liar:
        ran = connect(liar.url)
    assert ran.status == 1
    assert "has more than 1,048,576 bytes" in ran.err


@pytest.mark.parametrize("route", ROUTES)
def test_an_answer_that_does_not_come_is_not_waited_for(connect: Connect, route: tuple[str, str]) -> None:
    with lying({**TRUE, route: Answer(200, silent=True)}) as liar:
        ran = connect(liar.url, "--timeout", "0.2")
    assert ran.status == 1
    assert "no complete answer within 0.2 seconds" in ran.err


def test_a_compressed_answer_is_not_unpacked(connect: Connect) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    answer = Answer(200, bomb, {"content-type": "application/json", "content-encoding": "gzip"})
    with lying({**TRUE, ("GET", "/v1/models"): answer}) as liar:
        ran = connect(liar.url)
    assert (ran.status, "## OpenAI" in ran.out) == (0, False)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_named_and_not_followed(connect: Connect, status: int) -> None:
    with lying(TRUE) as other:
        target = other.url.replace("//", "//u:the-password@") + "/api/v1/chat"
        with lying({}, Answer(status, headers={"location": target})) as liar:
            ran = connect(liar.url, "--api-key", KEY)
        assert other.requests == []
    assert ran.status == 1
    assert f"it redirects to '{other.url}" in ran.err
    assert "the-password" not in ran.err
    assert HARMLESS.fullmatch(ran.err)
    assert [one for one in liar.requests if one[2]] == []


def test_the_key_is_sent_to_the_server_alone_and_only_if_it_is_one(connect: Connect) -> None:
    with lying(TRUE) as other:
        card = {
            "name": "x",
            "supportedInterfaces": [
                {"url": f"{other.url}/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
            ],
        }
        challenge = f'Bearer resource_metadata="{other.url}/.well-known/oauth-protected-resource/api/v1"'
        answers = {
            **TRUE,
            ("POST", "/api/v1/chat"): as_json(401, {}, **{"www-authenticate": challenge}),
            ("GET", "/.well-known/agent-card.json"): as_json(200, card),
        }
        with lying(answers) as liar:
            ran = connect(liar.url, "--api-key", KEY)
        assert other.requests == []
    assert ran.status == 1
    assert f"a2a: the agent card has the URL '{other.url}/a2a' in place of {liar.url}" in ran.err
    assert f"resource_metadata of WWW-Authenticate has the URL '{other.url}/" in ran.err
    assert "--forwarded-allow-ips" in ran.err
    with lying({}) as no_server:
        connect(no_server.url, "--api-key", KEY)
    assert {one[2] for one in no_server.requests} == {None}


def test_a_server_that_repeats_the_key_does_not_get_it_printed(connect: Connect) -> None:
    listed = as_json(200, {"data": [{"id": f"model {KEY}"}, {"id": KEY}]})
    for answer in (FAULTS, as_json(403, {"detail": f"no {KEY}"}), as_json(500, {"detail": KEY})):
        challenge = as_json(401, {}, **{"www-authenticate": f"Bearer realm={KEY}"})
        with lying({**TRUE, ("GET", "/v1/models"): listed, ("POST", "/api/v1/chat"): answer}) as liar:
            for options in ((), ("--json",)):
                ran = connect(liar.url, *options, "--api-key", KEY)
                assert KEY not in ran.out + ran.err
        with lying({("GET", "/api/v1/chat"): challenge}, challenge) as liar:
            ran = connect(liar.url, "--api-key", KEY)
            assert KEY not in ran.out + ran.err


NAMES = [
    "$(touch /tmp/x)",
    "x\nModels: y\r\b",
    "`id`",
    "'; id; '",
    '"; id; "',
    "\u202e\x1b[31m",
    "a\nb",
    "../..",
    "-rf",
    "{}" * 5000,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_the_server_does_not_get_into_a_command(connect: Connect, name: str) -> None:
    card = {"name": name, "supportedInterfaces": []}
    answers = {
        **TRUE,
        ("GET", "/v1/models"): as_json(200, {"data": [{"id": name}]}),
        ("GET", "/.well-known/agent-card.json"): as_json(200, card),
        ("GET", "/mcp"): as_json(405, {}, allow="POST"),
    }
    with lying(answers) as liar:
        ran = connect(liar.url)
    examples = re.findall(r"^```\w+\n(.*?)\n```$", ran.out, re.DOTALL | re.MULTILINE)
    assert len(examples) > 8
    for example in examples:
        assert name not in example
    assert not {"\x1b", "\u202e", "\r", "\b"} & {*ran.out}
    assert ran.out.count("\nModels: ") == 1
    assert len(ran.out) < 20_000
    command = shlex.split(ran.example("Claude Code, in a terminal"))
    assert re.fullmatch("[a-z0-9][a-z0-9-]*", command[5])
    assert command[6:] == [f"{liar.url}/mcp"]


@pytest.mark.parametrize(
    ("answers", "otherwise", "told"),
    [
        ({}, Answer(200, b"<html>"), "gets 200, and jimsapi would refuse it with 405 and Allow: POST; check the URL"),
        ({}, Answer(401), "let the proxy in front of the server pass requests without a login"),
        ({}, as_json(502, {"detail": "no upstream"}), "gets 502 no upstream; start the server behind the proxy"),
        (TRUE, Answer(200, b"<html>"), "a path that does not exist gets 200 in place of 404"),
        ({("GET", "/api/v1/chat"): as_json(405, {})}, NOT_FOUND, "gets 405, and jimsapi would refuse it"),
    ],
)
def test_what_is_no_server_of_jimsapi_is_named(
    connect: Connect, answers: dict[tuple[str, str], Answer], otherwise: Answer, told: str
) -> None:
    with lying(answers, otherwise) as liar:
        ran = connect(liar.url)
    assert (ran.status, ran.out) == (1, "")
    assert told in ran.err


def test_a_server_that_is_not_ready_is_named(connect: Connect) -> None:
    draining = as_json(503, {"status": "draining"})
    with lying({**TRUE, ("GET", "/readyz"): draining, ("POST", "/api/v1/chat"): draining}) as liar:
        ran = connect(liar.url)
    assert ran.status == 1
    assert "the server accepts no messages now (503): try again later" in ran.err
    assert "the server is not ready (draining)" in ran.err


def test_a_server_that_asks_for_something_else_than_a_bearer_token_is_named(connect: Connect) -> None:
    asked = as_json(401, {}, **{"www-authenticate": 'Basic realm="people", Negotiate'})
    with lying({**TRUE, ("POST", "/api/v1/chat"): asked}) as liar:
        ran = connect(liar.url)
    assert ran.status == 0
    assert "Note: the server asks for Basic, Negotiate, and not for a bearer token" in ran.out


POST_ONLY = as_json(405, {}, allow="POST")


def rpc(result: Any, **headers: str) -> Answer:
    return as_json(200, {"jsonrpc": "2.0", "id": 1, "result": result}, **headers)


def test_tools_are_read_in_the_era_of_mcp_that_a_server_speaks(connect: Connect) -> None:
    tools = rpc({"tools": [{"name": "ask"}, {"name": "look_up"}]})
    begun = rpc({"protocolVersion": "2025-11-25", "capabilities": {}})
    as_stream = Answer(
        200, b"event: message\r\ndata: " + begun.body + b"\r\n\r\n", {"content-type": "text/event-stream"}
    )
    discovered = rpc({"supportedVersions": ["2026-07-28"]})
    unknown = as_json(400, {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Method not found"}})
    for discover, initialize in ((unknown, begun), (unknown, as_stream), (discovered, unknown)):
        answers = {
            ("GET", "/mcp"): POST_ONLY,
            ("POST", "/mcp#server/discover"): discover,
            ("POST", "/mcp#initialize"): initialize,
            ("POST", "/mcp#tools/list"): tools,
        }
        with lying({**TRUE, **answers}) as liar:
            ran = connect(liar.url)
        assert (ran.status, ran.err) == (0, "")
        assert "\nTools: ask, look_up\n" in ran.out
    with lying({**TRUE, **answers, ("POST", "/mcp#server/discover"): unknown}) as liar:
        ran = connect(liar.url)
    assert ran.status == 1
    assert "mcp: it answers neither server/discover nor initialize as MCP does (status 400)" in ran.err


def test_an_agent_that_does_not_answer_as_its_card_says_is_named(connect: Connect) -> None:
    not_found = as_json(200, {"jsonrpc": "2.0", "id": 1, "error": {"code": -32001, "message": "Task not found"}})
    with lying({**TRUE}) as liar:
        interface = {"url": f"{liar.url}/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        card = as_json(200, {"name": "Bot", "supportedInterfaces": [interface]})
        liar.answers["GET", "/.well-known/agent-card.json"] = card
        for answer, fault in (
            (not_found, None),
            (rpc({}), "it does not answer as A2A 1.0 does (status 200)"),
            (NOT_FOUND, "it does not answer as A2A 1.0 does (status 404)"),
            (as_json(403, {"error": {"message": "not you"}}), "it refuses this caller with 403 not you"),
        ):
            liar.answers["POST", "/a2a#GetTask"] = answer
            ran = connect(liar.url)
            assert ran.err == ("" if fault is None else f"jimsapi: a2a: {liar.url}/a2a: {fault}\n")
            assert f"Interface: JSONRPC 1.0 at {liar.url}/a2a" in ran.out


def test_the_oauth_document_is_read_and_compared(connect: Connect) -> None:
    place = "/.well-known/oauth-protected-resource/api/v1"
    with lying(TRUE) as liar:
        challenge = f'Bearer resource_metadata="{liar.url}{place}", scope="chat"'
        document = {"resource": f"{liar.url}/api/v1", "authorization_servers": ["https://issuer.example/"]}
        liar.answers["POST", "/api/v1/chat"] = as_json(401, {}, **{"www-authenticate": challenge})
        liar.answers["GET", place] = as_json(200, document)
        ran = connect(liar.url)
        assert (ran.status, ran.err) == (0, "")
        assert "Clients can sign in with OAuth at https://issuer.example/" in ran.out
        liar.answers["GET", place] = as_json(200, {**document, "resource": f"https://127.0.0.1:{liar.port}/api/v1"})
        ran = connect(liar.url)
        assert ran.status == 1
        assert "the server does not trust its proxy: start it with --forwarded-allow-ips" in ran.err
        liar.answers["GET", place] = as_json(200, {**document, "resource": f"{liar.url}/bot/api/v1"})
        assert "start the server with --root-path" in connect(liar.url).err
        for nothing in ([], ["javascript:alert(1)"], "https://issuer.example/", None, [1]):
            liar.answers["GET", place] = as_json(200, {**document, "authorization_servers": nothing})
            ran = connect(liar.url)
            assert (ran.status, "names no authorization server" in ran.err) == (1, True)
