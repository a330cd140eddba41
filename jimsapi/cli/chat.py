"""`jimsapi chat`: connects to a server and begins the conversation, in a terminal or through pipes."""

import io
import sys
from uuid import UUID

import click
import httpx

from jimsapi.cli.client_key import client_key
from jimsapi.cli.terminal.conversation import Conversation
from jimsapi.cli.terminal.screen import Screen
from jimsapi.cli.terminal.threads import Threads
from jimsapi.client import Client
from jimsapi.plugins.errors import StartError

INTERRUPTED = 130
"""The exit status after Ctrl-C."""


def chat(
    context: click.Context,
    /,
    url: str,
    api_key: str | None,
    api_key_file: str | None,
    contact: str | None,
    thread: UUID | None,
    history: bool,
) -> None:
    """Send messages until the input ends. Exits with 1 if a piped message got no answer, with 130 after Ctrl-C."""
    group_keys = (context.obj or {}).get("api_key") or ()  # given before the name of the command
    key = client_key(api_key or (group_keys[-1] if group_keys else None), api_key_file)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    with httpx.Client() as http:
        try:
            client = Client(url, api_key=key, http=http)
        except ValueError as error:
            raise StartError(str(error)) from None
        _check_server(url)
        conversation = _conversation(client, Threads(http, url, key), contact, thread, history)
        http.event_hooks = {"request": [conversation.on_request], "response": [conversation.on_response]}
        try:
            context.exit(conversation.run())
        except KeyboardInterrupt:
            conversation.screen.end_line()
            context.exit(INTERRUPTED)
        except BrokenPipeError:
            raise  # the reader of the output closed the pipe, which is not an error
        except OSError as error:
            raise StartError(f"the conversation cannot continue: {error.strerror}") from None


def _conversation(
    client: Client, threads: Threads, contact: str | None, thread: UUID | None, history: bool
) -> Conversation:
    """Return the conversation for this terminal. Without a terminal, nothing of the extra is imported."""
    screen = Screen(sys.stdout)
    if not (screen.interactive and sys.stdin.isatty()):
        return Conversation(client, screen, contact, thread)
    try:
        from jimsapi.cli.terminal.rich_conversation import RichConversation
    except ImportError:
        screen.line("For Markdown, colours, multi-line input and lists of threads, install jimsapi[chat].")
        return Conversation(client, screen, contact, thread)
    return RichConversation(client, threads, contact, thread, keep_history=history)


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
