"""`jimsapi chat`: a conversation with a server, from a terminal or a pipe.

In a terminal, the status of the pipeline is a line that the next output replaces, and Ctrl-C cancels the answer.
"""

import getpass
import io
import json
import os
import secrets
import shutil
import signal
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO
from uuid import UUID, uuid4

import click
import httpx

from jimsapi.client import (
    Activity,
    ApiError,
    Client,
    ClientError,
    Conflict,
    Delta,
    Event,
    Forbidden,
    Gap,
    InvalidRequest,
    Item,
    NotFound,
    Question,
    Reasoning,
    Result,
    RunFailed,
    Started,
    Status,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.secrets import secret_lines, secret_text

PROMPT = "> "
INTERRUPTED = 130
"""The exit status after Ctrl-C."""

_MESSAGE_TYPES = ("comm.assistant_message", "comm.assistant_message_with_buttons")
_CLEAR_LINE = "\r\x1b[K"
_DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction in which a terminal shows text."""

_ADVICE: list[tuple[type[ApiError], str]] = [
    (Unauthorized, "give the key with --api-key-file FILE, or in JIMS_API_KEY"),
    (Forbidden, "use another key, or another --contact"),
    (NotFound, "send it again, or check --thread and --url"),
    (Conflict, "send it again later"),
    (TooManyRequests, "send it again later"),
    (Unavailable, "send it again later"),
    (RunFailed, "the server's log may have details"),
    (TimedOut, "send it again, or ask for less"),
]


def chat(
    context: click.Context,
    /,
    url: str,
    api_key: str | None,
    api_key_file: str | None,
    contact: str | None,
    thread: UUID | None,
) -> None:
    """Send messages until the input ends. Exits with 1 if a piped message got no answer, with 130 after Ctrl-C."""
    group_keys = (context.obj or {}).get("api_key") or ()  # given before the name of the command
    key = _key(api_key or (group_keys[-1] if group_keys else None), api_key_file)
    try:
        client = Client(url, api_key=key)
    except ValueError as error:
        raise StartError(str(error)) from None
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    with client:
        _check_server(url)
        conversation = Conversation(client, Screen(sys.stdout), contact, thread)
        try:
            context.exit(conversation.run())
        except KeyboardInterrupt:
            conversation.screen.end_line()
            context.exit(INTERRUPTED)
        except BrokenPipeError:
            raise  # the reader of the output closed the pipe, which is not an error
        except OSError as error:
            raise StartError(f"the conversation cannot continue: {error.strerror}") from None


def _key(given: str | None, file: str | None) -> str | None:
    """The API key, from the first that is set: --api-key, --api-key-file, JIMS_API_KEY, JIMS_API_KEY_FILE."""
    if given:
        return given
    variable = os.environ.get("JIMS_API_KEY", "").strip()
    path = file or (not variable and os.environ.get("JIMS_API_KEY_FILE"))
    if not path:
        return variable or None
    try:
        keys = secret_lines(secret_text(Path(path).read_bytes()))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartError(f"the key in {path} cannot be read: {reason}") from None
    if not keys:
        raise StartError(f"there is no key in {path}: put it on a line of its own")
    return keys[0]


def _check_server(url: str) -> None:
    """Raise `StartError` if the server does not answer, before the user types a message."""
    try:
        with httpx.stream("GET", f"{url.rstrip('/')}/healthz", timeout=10):
            pass  # any status shows that the server answers
    except httpx.TransportError as error:
        host = httpx.URL(url).netloc.decode()
        reason = str(error) or type(error).__name__
        advice = "start the server, or give its --url"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            advice = "use the server's name in --url, or name the file of its certificate authority in SSL_CERT_FILE"
        raise StartError(f"{host} does not answer ({reason}): {advice}") from None


class Conversation:
    """Reads messages from standard input, sends them, and shows the answers."""

    def __init__(self, client: Client, screen: "Screen", contact: str | None, thread: UUID | None) -> None:
        self.screen = screen
        self._client = client
        self._contact = contact
        self._thread = thread
        self._input_is_terminal = sys.stdin.isatty()
        self._prompt = PROMPT if self._input_is_terminal and sys.stdout.isatty() else ""
        self._answer: Answer | None = None
        self._questions: list[Question] = []

    def run(self) -> int:
        """Send messages until the input ends. Returns the exit status."""
        previous = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            if self._prompt:
                self.screen.line("Ctrl-C cancels an answer, Ctrl-D exits, /new begins a new thread.")
            for message in self._messages():
                if message == "/new":
                    self._begin_thread()
                elif not self._send(message) and not self._input_is_terminal:
                    return 1
        finally:
            signal.signal(signal.SIGINT, previous)
        return 0

    def _messages(self) -> Iterator[str]:
        if not self._input_is_terminal:
            for line in sys.stdin:
                if text := _sendable(line):
                    yield text
            return
        with suppress(ImportError):  # some builds of Python do not have it
            import readline  # noqa: F401 - it adds history and editing to `input`

        interrupted = False
        while True:
            try:
                line = input(self._prompt)
            except EOFError:
                if self._prompt:
                    self.screen.line("")
                return
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                self.screen.line("\nCtrl-C again exits.")
                continue
            interrupted = False
            if text := _sendable(line):
                yield text

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle Ctrl-C: cancel the answer. The main thread still waits for the end of the stream.

        Raises `KeyboardInterrupt` if there is no answer, or if it is already cancelled.
        """
        if self._answer is None or self._answer.cancelled:
            raise KeyboardInterrupt
        self._answer.cancel()

    def _begin_thread(self) -> None:
        """Begin a new thread. The API begins one only for a new contact, so change the contact."""
        if self._contact is None:
            self.screen.line(
                "Your messages always continue your newest thread: to begin a new one, restart with another --contact."
            )
            return
        self._contact = f"{self._contact.partition('+')[0]}+{secrets.token_hex(3)}"
        self._thread = None
        self._questions = []
        self.screen.line(
            f"A new thread begins, with you as {self._contact}: messages of a contact continue its newest thread."
        )

    def _send(self, message: str) -> bool:
        """Send a message and show the answer or the error. Returns whether there was an answer."""
        while True:
            answers = answers_in(message, self._questions)
            text = message if answers is None else ""
            self._answer = answer = Answer(self._client, self.screen, text, self._contact, self._thread, answers)
            try:
                answer.show()
                self._questions = answer.questions
            except ClientError as error:
                if self._contact is None and _lacks_contact(error) and (name := _login_name()):
                    self._contact = name
                    continue
                if answers is not None and isinstance(error, (NotFound, Conflict)):
                    self._questions = []  # they cannot be answered any more: the next line is a message
                if answer.cancelled and isinstance(error, Conflict):
                    self.screen.show_error("(cancelled)")
                else:
                    self.screen.show_error(_advice(error))
                return False
            finally:
                self._answer = None
            return True


class Answer:
    """The stream of the answer to one message."""

    def __init__(
        self,
        client: Client,
        screen: "Screen",
        message: str,
        contact: str | None,
        thread: UUID | None,
        answers: dict[str, Any] | None = None,
    ) -> None:
        self.cancelled = False
        self.questions: list[Question] = []
        self._client = client
        self._screen = screen
        self._run_id: UUID | None = None
        self._started_or_ended = threading.Event()
        self._deltas: dict[UUID, str] = {}
        self._items = client.stream(
            message, contact_id=contact, thread_id=thread, answers=answers, idempotency_key=str(uuid4())
        )

    def show(self) -> None:
        """Show the answer as it arrives. Raises `ClientError`."""
        try:
            for item in self._items:
                self._show(item)
        finally:
            self._started_or_ended.set()
            self._screen.end_line()

    def cancel(self) -> None:
        """Cancel the run in another thread, as soon as its identifier is known."""
        self.cancelled = True
        threading.Thread(target=self._cancel, daemon=True).start()

    def _cancel(self) -> None:
        self._screen.status("Cancelling; Ctrl-C again exits.")
        self._started_or_ended.wait()
        if self._run_id is None:
            return
        try:
            self._client.cancel(self._run_id)
        except Conflict:
            pass  # the run has already ended, and its answer is shown
        except ClientError as error:
            self._screen.show_error(_advice(error))

    def _show(self, item: Item) -> None:
        match item:
            case Started(run_id=run_id):
                self._run_id = run_id
                self._started_or_ended.set()
            case Status(status=status):
                self._screen.status(status)
            case Reasoning():
                self._screen.status("Thinking")
            case Activity(event_type="tool.call", event_data={"name": name}):
                self._screen.status(f"Tool: {name}")
            case Delta(message_id=message_id, content=content):
                self._show_delta(message_id, content)
            case Event(event_id=event_id, event_type=kind, event_data=dict(data)) if kind in _MESSAGE_TYPES:
                self._show_message(event_id, data)
            case Result(questions=questions):
                self.questions = questions
                for question in questions:
                    self._screen.line(_question_line(question))
            case Gap():
                self._deltas.clear()  # parts may be missing on the screen, so the event shows the whole message again

    def _show_delta(self, message_id: UUID, content: str) -> None:
        if message_id not in self._deltas:
            self._screen.end_line()
        self._deltas[message_id] = self._deltas.get(message_id, "") + content
        self._screen.write(content)

    def _show_message(self, message_id: UUID, data: dict[str, Any]) -> None:
        """Show the rest of a message, and its buttons."""
        content = str(data.get("content", ""))
        deltas = self._deltas.get(message_id, "")
        remainder = content.removeprefix(deltas)
        if len(remainder) == len(content):
            self._screen.end_line()
        self._screen.write(remainder)
        buttons = data.get("buttons")
        if isinstance(buttons, list):
            texts = [f"[{button.get('text', '')}]" for button in buttons if isinstance(button, dict)]
            self._screen.line(" ".join(texts))


class Screen:
    """The output. It removes control characters, so that a server cannot control the terminal.

    If it is `interactive`, it has a status line, which the next output replaces. Several threads may share a screen.
    """

    def __init__(self, out: TextIO) -> None:
        self.interactive = out.isatty() and os.environ.get("TERM") != "dumb"
        self._out = out
        self._lock = threading.Lock()
        self._status = False
        self._in_line = False

    def status(self, text: str) -> None:
        """Show a status line, if the screen is interactive."""
        if not self.interactive:
            return
        with self._lock:
            self._end_line()
            width = shutil.get_terminal_size().columns - 1
            self._status = True
            self._write(_CLEAR_LINE + _cut(clean_line(text), width))

    def write(self, text: str) -> None:
        """Show the next piece of a text."""
        text = clean(text)
        if not text:
            return
        with self._lock:
            self._clear_status()
            self._in_line = not text.endswith("\n")
            self._write(text)

    def line(self, text: str) -> None:
        """Show a text on a new line."""
        with self._lock:
            self._end_line()
            self._write(f"{clean(text)}\n")

    def show_error(self, text: str) -> None:
        """Show an error. If the output is a file or a pipe, write the error to standard error."""
        if self.interactive:
            self.line(text)
        else:
            self.end_line()
            click.echo(text, err=True)

    def end_line(self) -> None:
        """End the current line, if it has text."""
        with self._lock:
            self._end_line()

    def _end_line(self) -> None:
        self._clear_status()
        if self._in_line:
            self._in_line = False
            self._write("\n")

    def _clear_status(self) -> None:
        if self._status:
            self._status = False
            self._write(_CLEAR_LINE)

    def _write(self, text: str) -> None:
        encoding = self._out.encoding or "utf-8"
        self._out.write(text.encode(encoding, "replace").decode(encoding))
        self._out.flush()


def clean(text: str) -> str:
    """Return a text without control characters (except line ends and tabs) and without direction marks."""
    return "".join(
        character
        for character in text
        if character in "\n\t" or not (unicodedata.category(character) == "Cc" or character in _DIRECTION_MARKS)
    )


def clean_line(text: str) -> str:
    """Return a text as `clean` does, on one line."""
    return " ".join(clean(text).split())


def _cut(text: str, width: int) -> str:
    """The beginning of a text, at most `width` columns wide."""
    columns = 0
    for index, character in enumerate(text):
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > width:
            return text[:index]
    return text


def answers_in(message: str, questions: Sequence[Question]) -> dict[str, Any] | None:
    """Return the answers that a typed line is: to the only open question. None if it is a message.

    An option is typed as it is shown, and a form as JSON.
    """
    if len(questions) != 1:
        return None
    [question] = questions
    value: Any = message
    if question.options is not None and message not in question.options:
        return None
    if question.options is None and question.schema is not None:
        try:
            value = json.loads(message)
        except ValueError:
            return None
    return {str(question.question_id): value}


def _question_line(question: Question) -> str:
    """A question, with what may be typed."""
    if question.options is not None:
        return f"{question.text} {' '.join(f'[{option}]' for option in question.options)}"
    if question.schema is not None:
        return f"{question.text} (answer in JSON: {json.dumps(question.schema)})"
    return question.text


def _sendable(line: str) -> str:
    """A typed line without characters that JSON cannot encode."""
    return line.encode("utf-8", "replace").decode().strip()


def _login_name() -> str | None:
    """The login name, or None if the user has only a number, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def _lacks_contact(error: ClientError) -> bool:
    """Whether the server requires a `contact_id`, because the key is not bound to a contact."""
    faults = error.detail if isinstance(error, InvalidRequest) and isinstance(error.detail, list) else []
    return any(isinstance(fault, dict) and fault.get("loc") == ["body", "contact_id"] for fault in faults)


def _advice(error: ClientError) -> str:
    """An error, and what to do about it, on one line."""
    wait = getattr(error, "retry_after", None)
    advice = next((advice for kind, advice in _ADVICE if isinstance(error, kind)), "")
    if _lacks_contact(error):
        advice = "give your contact_id with --contact"
    if wait is not None and wait > 1:
        advice = f"send it again in {wait:.0f} seconds"
    text = clean_line(str(error)).rstrip(".")
    return f"{text}: {advice}" if advice else text
