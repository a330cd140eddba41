"""A conversation in a terminal with the extra `jimsapi[chat]`: Markdown, an editor, numbered choices and commands."""

import sys
from types import FrameType
from uuid import UUID

from jimsapi.cli.terminal.conversation import PROMPT, Conversation, advice, lacks_contact, login_name
from jimsapi.cli.terminal.editor import Editor, no_echo
from jimsapi.cli.terminal.history import HistoryFile, history_path
from jimsapi.cli.terminal.rich_screen import RichScreen
from jimsapi.cli.terminal.text import clean_line
from jimsapi.cli.terminal.threads import Thread, Threads
from jimsapi.client import Client, ClientError, InvalidRequest

_HELP = """\
Enter            sends the message
Alt-Enter        begins a new line in it (Esc and then Enter does, too); pasted lines stay together
Up, Down, Ctrl-R find earlier messages
Ctrl-C           cancels an answer
Ctrl-D           exits
1, 2, …          chooses a button, or the answer to a question
/new             begins a new thread
/threads         lists your threads
/switch NUMBER   continues a thread of that list
//help           sends the message "/help"; the same holds for the other commands"""
_COMMANDS = ("/help", "/new", "/threads", "/switch")
_MAX_DIGITS = 6


class RichConversation(Conversation):
    """Reads messages and commands from a terminal."""

    screen: RichScreen

    def __init__(
        self, client: Client, threads: Threads, contact: str | None, thread: UUID | None, *, keep_history: bool
    ) -> None:
        super().__init__(client, RichScreen(sys.stdout), contact, thread)
        self._commands = "/help lists the rest."
        self._threads = threads
        self._editor = Editor(PROMPT, self._history_file() if keep_history else None)
        self._contacts: list[str] = []  # those before each /new and /switch
        self._listed: list[Thread] = []

    def _history_file(self) -> HistoryFile | None:
        try:
            return HistoryFile(history_path())
        except (OSError, RuntimeError) as error:
            self.screen.line(f"Your messages are not kept for the next chat: {error}")
            return None

    def _read_line(self) -> str:
        return self._editor.read()

    def _handle(self, message: str) -> bool:
        with no_echo():
            match message.split():
                case ["/help"]:
                    self.screen.line(_HELP)
                case ["/new"]:
                    self._begin_thread()
                case ["/threads"]:
                    self._show_threads()
                case ["/switch", *words]:
                    self._switch(" ".join(words))
                case [word, *_] if word.startswith("//") and word[1:] in _COMMANDS:
                    return self._send(message[1:])
                case _:
                    return self._send(self._chosen(message))
        return True

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle Ctrl-C as in every conversation, but not between an answer and the prompt, which has its own way."""
        if self._answer is not None:
            super()._on_interrupt(number, frame)

    def _chosen(self, message: str) -> str:
        """Return the choice whose number was typed, or else the message itself."""
        if self._questions and self._questions[0].options is None:
            return message  # a question without options may be answered by a number
        choices = [] if self._last is None else self._last.choices
        number = _number(message)
        if message in choices or not 0 < number <= len(choices):
            return message
        self.screen.note(choices[number - 1])
        return choices[number - 1]

    def _show_threads(self) -> None:
        if not self._list_threads():
            return
        current = self._thread if self._last is None else self._last.thread_id
        for number, thread in enumerate(self._listed, 1):
            mark = "*" if thread.thread_id == current else " "
            self.screen.line(f"{mark}{number:>3}. {_thread_line(thread)}")
        self.screen.line("/switch NUMBER continues one of them." if self._listed else "There are no threads.")

    def _switch(self, argument: str) -> None:
        if not self._listed and not self._list_threads():
            return
        number = _number(argument)
        if not 0 < number <= len(self._listed):
            self.screen.line(f"/switch needs the number of a thread in the list of /threads, 1 to {len(self._listed)}.")
            return
        thread = self._listed[number - 1]
        self._remember_contact()
        if self._contact is not None:
            self._contact = thread.contact_id
        self._continue(thread.thread_id)
        self.screen.line(f"Your messages continue this thread: {_thread_line(thread)}")

    def _list_threads(self) -> bool:
        """List the threads of all contacts of this conversation. Returns whether that was possible."""
        try:
            self._listed = self._newest_threads()
        except ClientError as error:
            self.screen.show_error(advice(error))
            return False
        return True

    def _newest_threads(self) -> list[Thread]:
        if self._contact is None:
            try:
                return self._threads.newest(None)
            except InvalidRequest as error:
                if not lacks_contact(error) or (name := login_name()) is None:
                    raise
                self._contact = name
        contacts = [self._contact, *(contact for contact in reversed(self._contacts) if contact != self._contact)]
        return [thread for contact in contacts for thread in self._threads.newest(contact)]

    def _begin_thread(self) -> None:
        self._remember_contact()
        super()._begin_thread()

    def _remember_contact(self) -> None:
        if self._contact is not None and self._contact not in self._contacts:
            self._contacts.append(self._contact)


def _number(text: str) -> int:
    """The number that a text is; 0 if it is none, or longer than the number of any choice."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else 0


def _thread_line(thread: Thread) -> str:
    title = clean_line(thread.title or "(no title)")
    return title if thread.active_at is None else f"{title}, {thread.active_at.astimezone():%Y-%m-%d %H:%M}"
