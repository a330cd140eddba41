"""A conversation: reads messages, sends them, and shows the answers.

In a terminal, the status of the pipeline is a line that the next output replaces, and Ctrl-C cancels the answer.
"""

import getpass
import json
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any
from uuid import UUID, uuid4

import httpx

from jimsapi.cli.terminal.screen import Screen
from jimsapi.cli.terminal.text import clean_line
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

PROMPT = "> "

_CONTACT_PLACES = (["body", "contact_id"], ["query", "contact_id"])
"""Where a fault says that a contact is missing: in a message, and in a request for threads."""

_MESSAGE_TYPES = ("comm.assistant_message", "comm.assistant_message_with_buttons")

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


class Conversation:
    """Reads messages from standard input, sends them, and shows the answers."""

    def __init__(self, client: Client, screen: Screen, contact: str | None, thread: UUID | None) -> None:
        self.screen = screen
        self._client = client
        self._contact = contact
        self._thread = thread
        self._input_is_terminal = sys.stdin.isatty()
        self._prompt = PROMPT if self._input_is_terminal and sys.stdout.isatty() else ""
        self._commands = "/new begins a new thread."
        self._answer: Answer | None = None
        self._last: Answer | None = None  # the newest that was shown whole
        self._questions: list[Question] = []

    def run(self) -> int:
        """Send messages until the input ends. Returns the exit status."""
        previous = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            if self._prompt:
                self.screen.line(f"Ctrl-C cancels an answer, Ctrl-D exits, {self._commands}")
            for message in self._messages():
                if not self._handle(message) and not self._input_is_terminal:
                    return 1
        finally:
            signal.signal(signal.SIGINT, previous)
        return 0

    def on_request(self, request: httpx.Request) -> None:
        """The client is about to send a request."""
        if self._answer is not None and _is_stream(request):
            self._answer.on_connecting()

    def on_response(self, response: httpx.Response) -> None:
        """The client has received the head of a response."""
        if self._answer is not None and _is_stream(response.request) and response.status_code == 200:
            self._answer.on_connected()

    def _messages(self) -> Iterator[str]:
        if not self._input_is_terminal:
            for line in sys.stdin:
                if text := _sendable(line):
                    yield text
            return
        interrupted = False
        while True:
            try:
                line = self._read_line()
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

    def _read_line(self) -> str:
        """Read a message from the terminal. Raises `EOFError` after Ctrl-D and `KeyboardInterrupt` after Ctrl-C."""
        with suppress(ImportError):  # some builds of Python do not have it
            import readline  # noqa: F401 - it adds history and editing to `input`
        return input(self._prompt)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle Ctrl-C: cancel the answer. The main thread still waits for the end of the stream.

        Raises `KeyboardInterrupt` if there is no answer, or if it is already cancelled.
        """
        if self._answer is None or self._answer.cancelled:
            raise KeyboardInterrupt
        self._answer.cancel()

    def _handle(self, message: str) -> bool:
        """Do what a message says. Returns false if it was sent and got no answer."""
        if message == "/new":
            self._begin_thread()
            return True
        return self._send(message)

    def _begin_thread(self) -> None:
        """Begin a new thread. The API begins one only for a new contact, so change the contact."""
        if self._contact is None:
            self.screen.line(
                "Your messages always continue your newest thread: to begin a new one, restart with another --contact."
            )
            return
        self._contact = f"{self._contact.partition('+')[0]}+{secrets.token_hex(3)}"
        self._continue(None)
        self.screen.line(
            f"A new thread begins, with you as {self._contact}: messages of a contact continue its newest thread."
        )

    def _continue(self, thread: UUID | None) -> None:
        """Send the next messages to another thread; None is the contact's newest."""
        self._thread = thread
        self._questions = []
        self._last = None

    def _send(self, message: str) -> bool:
        """Send a message and show the answer or the error. Returns whether there was an answer."""
        while True:
            answers = answers_in(message, self._questions)
            text = message if answers is None else ""
            self._answer = answer = Answer(self._client, self.screen, text, self._contact, self._thread, answers)
            try:
                answer.show()
                self._questions = answer.questions
                self._last = answer
            except ClientError as error:
                if self._contact is None and lacks_contact(error) and (name := login_name()):
                    self._contact = name
                    continue
                if answers is not None and isinstance(error, (NotFound, Conflict)):
                    self._questions = []  # they cannot be answered any more: the next line is a message
                if answer.cancelled and isinstance(error, Conflict):
                    self.screen.show_error("(cancelled)")
                else:
                    self.screen.show_error(advice(error))
                return False
            finally:
                self._answer = None
            return True


class Answer:
    """The stream of the answer to one message."""

    def __init__(
        self,
        client: Client,
        screen: Screen,
        message: str,
        contact: str | None,
        thread: UUID | None,
        answers: dict[str, Any] | None = None,
    ) -> None:
        self.cancelled = False
        self.thread_id: UUID | None = None
        self.questions: list[Question] = []
        self.choices: list[str] = []  # what the buttons and the questions offer, in the order of their numbers
        self._client = client
        self._screen = screen
        self._run_id: UUID | None = None
        self._started_or_ended = threading.Event()
        self._ended = False
        self._deltas: dict[UUID, list[str]] = {}
        self._tool_calls: set[UUID] = set()
        self._status = ""
        self._requested = False
        self._reconnecting = False
        self._items = client.stream(
            message, contact_id=contact, thread_id=thread, answers=answers, idempotency_key=str(uuid4())
        )

    def show(self) -> None:
        """Show the answer as it arrives. Raises `ClientError`."""
        try:
            for item in self._items:
                self._show(item)
        finally:
            self._ended = True
            self._started_or_ended.set()
            self._screen.end_line()

    def on_connecting(self) -> None:
        """The client requests the stream: if it did so before, it has lost the connection."""
        if self._requested:
            self._reconnecting = True
            self._screen.status("reconnecting…")
        self._requested = True

    def on_connected(self) -> None:
        """The server sends the stream: show again what was shown before the connection was lost."""
        if self._reconnecting:
            self._reconnecting = False
            self._screen.status(self._status)

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
            if not self._ended:  # and the prompt is not there yet
                self._screen.show_error(advice(error))

    def _show(self, item: Item) -> None:
        match item:
            case Started(run_id=run_id, thread_id=thread_id):
                self._run_id = run_id
                self.thread_id = thread_id
                self._started_or_ended.set()
            case Status(status=status):
                self._show_status(status)
            case Reasoning():
                self._show_status("Thinking")
            case Activity(event_id=event_id, event_type="tool.call", event_data={"name": name, **call}):
                self._show_tool_call(event_id, str(name), call)
            case Delta(message_id=message_id, content=content):
                self._show_delta(message_id, content)
            case Event(event_id=event_id, event_type=kind, event_data=dict(data)) if kind in _MESSAGE_TYPES:
                self._show_message(event_id, data)
            case Event(event_id=event_id, event_type="tool.call", event_data={"name": name, **call}):
                self._show_tool_call(event_id, str(name), call)  # if the stream did not have it before
            case Result(questions=questions):
                self.questions = questions
                if questions:  # one after another: a typed line answers the one that is shown
                    self._show_question(questions[0])
            case Gap():
                self._deltas.clear()  # parts may be missing on the screen, so the event shows the whole message again

    def _show_status(self, status: str) -> None:
        self._status = status
        self._screen.status(status)

    def _show_tool_call(self, event_id: UUID, name: str, call: dict[Any, Any]) -> None:
        """Show a call that begins as a status, and one that has ended once."""
        seconds, error = call.get("duration"), call.get("error")
        if not isinstance(seconds, int | float):
            self._show_status(f"Tool: {name}")
        elif event_id not in self._tool_calls:
            self._tool_calls.add(event_id)
            self._status = ""
            self._screen.tool_call(name, seconds, None if error is None else str(error))

    def _show_delta(self, message_id: UUID, content: str) -> None:
        if message_id not in self._deltas:
            self._screen.end_line()
        self._deltas.setdefault(message_id, []).append(content)
        self._status = ""
        self._screen.write(content)

    def _show_message(self, message_id: UUID, data: dict[str, Any]) -> None:
        """Show the rest of a message, and its buttons."""
        content = str(data.get("content", ""))
        remainder = content.removeprefix("".join(self._deltas.get(message_id, ())))
        if len(remainder) == len(content):
            self._screen.end_line()
        self._screen.write(remainder)
        buttons = data.get("buttons")
        if isinstance(buttons, list):
            self._offer("", [str(button.get("text", "")) for button in buttons if isinstance(button, dict)])

    def _show_question(self, question: Question) -> None:
        if question.options is not None:
            self._offer(question.text, question.options)
        elif question.schema is not None:
            self._screen.line(f"{question.text} (answer in JSON: {json.dumps(question.schema)})")
        else:
            self._screen.line(question.text)

    def _offer(self, text: str, options: list[str]) -> None:
        self._screen.choices(text, options, len(self.choices) + 1)
        self.choices += options


def answers_in(message: str, questions: Sequence[Question]) -> dict[str, Any] | None:
    """Return the answers that a typed line is: to the first open question. None if it is a message.

    An option is typed as it is shown, and a form as JSON.
    """
    if not questions:
        return None
    question = questions[0]
    value: Any = message
    if question.options is not None and message not in question.options:
        return None
    if question.options is None and question.schema is not None:
        try:
            value = json.loads(message)
        except (ValueError, RecursionError):
            return None
    return {str(question.question_id): value}


def _sendable(line: str) -> str:
    """A typed line without characters that JSON cannot encode."""
    return line.encode("utf-8", "replace").decode().strip()


def login_name() -> str | None:
    """Return the login name, or None if the user has only a number, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None


def lacks_contact(error: ClientError) -> bool:
    """Return whether the server requires a `contact_id`, because the key is not bound to a contact."""
    faults = error.detail if isinstance(error, InvalidRequest) and isinstance(error.detail, list) else []
    return any(isinstance(fault, dict) and fault.get("loc") in _CONTACT_PLACES for fault in faults)


def advice(error: ClientError) -> str:
    """Return an error, and what to do about it, on one line."""
    wait = getattr(error, "retry_after", None)
    what_to_do = next((what_to_do for kind, what_to_do in _ADVICE if isinstance(error, kind)), "")
    if lacks_contact(error):
        what_to_do = "give your contact_id with --contact"
    if wait is not None and wait > 1:
        what_to_do = f"send it again in {wait:.0f} seconds"
    text = clean_line(str(error)).rstrip(".")
    return f"{text}: {what_to_do}" if what_to_do else text


def _is_stream(request: httpx.Request) -> bool:
    """Whether a request is for the stream of a run: that of a new message, or the rest of one."""
    return request.url.path.endswith("/stream")
