"""The command `jimsapi chat` with its options. What it does is in `chat.py`, which imports an HTTP client.

A server imports this module and does not need that client.
"""

from typing import Any

import click

DEFAULT_URL = "http://127.0.0.1:8080"


def chat_command() -> click.Command:
    """Return the command `chat`. It does not import plugins."""
    return click.Command(
        "chat",
        callback=_chat,
        params=[
            click.Option(["--url"], default=DEFAULT_URL, show_default=True, help="The URL of the API."),
            click.Option(["--api-key"], help="The key; other users of the machine can see it. [JIMS_API_KEY]"),
            click.Option(["--api-key-file"], metavar="FILE", help="The file with the key. [JIMS_API_KEY_FILE]"),
            click.Option(["--contact"], help="Your contact_id. [the key's own contact, else your login name]"),
            click.Option(["--thread"], type=click.UUID, help="The thread to continue. [the contact's newest]"),
            click.Option(
                ["--history/--no-history"],
                default=True,
                envvar="JIMS_CHAT_HISTORY",
                help="Keep in a file what you type, for the next chat. [JIMS_CHAT_HISTORY, else --history]",
            ),
        ],
        help="Chat with a server. Each line is a message. In a terminal, Ctrl-C cancels the current answer and Ctrl-D "
        "exits. /new begins a new thread. With the extra jimsapi[chat], a terminal shows Markdown, and /help lists "
        "what else you can type.",
    )


@click.pass_context
def _chat(context: click.Context, /, **given: Any) -> None:
    from jimsapi.cli.chat import chat

    chat(context, **given)
