"""The command `jimsapi connect` with its options. What it does is in `connect.py`, which imports an HTTP client."""

from typing import Any

import click

from jimsapi.cli.chat_command import DEFAULT_URL

TIMEOUT = 10.0
"""The default of `--timeout`."""


def connect_command() -> click.Command:
    """Return the command `connect`. It does not import plugins."""
    return click.Command(
        "connect",
        callback=_connect,
        params=[
            click.Argument(["url"], default=DEFAULT_URL, metavar="[URL]"),
            click.Option(["--api-key"], help="The key; other users of the machine can see it. [JIMS_API_KEY]"),
            click.Option(["--api-key-file"], metavar="FILE", help="The file with the key. [JIMS_API_KEY_FILE]"),
            click.Option(["--json", "as_json"], is_flag=True, help="Print a JSON object."),
            click.Option(
                ["--timeout"],
                type=click.FloatRange(min=0, min_open=True, max=600),
                default=TIMEOUT,
                show_default=True,
                help="Seconds to wait for each answer of the server.",
            ),
        ],
        help="Print what well-known clients need to use a server: configurations of MCP clients, the agent card of "
        f"A2A, the base URL of OpenAI's API, and others. URL is that of the server, {DEFAULT_URL} by default. The "
        "command asks the server what it serves, and prints nothing else. It never prints the key. The exit status is "
        "0 if clients can use the server, 1 if they cannot, and 2 for wrong usage.",
    )


@click.pass_context
def _connect(context: click.Context, /, **given: Any) -> None:
    from jimsapi.cli.connect import connect

    connect(context, **given)
