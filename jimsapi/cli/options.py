"""The options of the command itself, and the conversion of options to flags."""

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

import click

from jimsapi.api.metrics import MetricsOptions
from jimsapi.builtin import builtin_plugins
from jimsapi.builtin.client_certificate import CertificateOptions
from jimsapi.plugins.compose import declared_options
from jimsapi.plugins.config_option import ConfigOptions
from jimsapi.plugins.core import FIRST_PARTY_AUTH, FIRST_PARTY_REPORTING, CoreOptions
from jimsapi.plugins.discovery import OWN_DISTRIBUTION, PluginOptions
from jimsapi.plugins.errors import OptionError, StartError
from jimsapi.plugins.manager import PluginManager
from jimsapi.plugins.options import Options, OptionSpec, Owned, option, specs
from jimsapi.plugins.secrets import Secret
from jimsapi.server.sockets import UNIX_CLIENT


class ServerOptions(Options):
    """Where and how the command listens."""

    host: str = option("0.0.0.0", help="The address to listen on.")
    port: int = option(8080, minimum=0, maximum=65535, help="The port to listen on; 0 selects a free one.")
    uds: Path | None = option(help="The path of a Unix socket to listen on, in place of --host and --port.")
    uds_mode: str = option(
        "660", help="The permissions of the Unix socket, in octal; users who may write to it may connect."
    )
    root_path: str = option("", help="The path under which a proxy shows the API, for example /bot.")
    root_path_kept: bool = option(help="The proxy does not remove --root-path from the paths of requests.")
    forwarded_allow_ips: str | None = option(
        help="Addresses of proxies whose X-Forwarded-* headers are trusted, separated by commas; unix means clients "
        "of a Unix socket, * any."
    )
    ssl_certfile: Path | None = option(help="The certificate chain (PEM); with it, the API uses HTTPS.")
    ssl_keyfile: Path | None = option(help="The certificate's private key (PEM), if it is in a file of its own.")
    drain_delay: float = option(
        0.0,
        minimum=0.0,
        maximum=3600,
        help="Seconds between a signal and the drain. Meanwhile /readyz is 503, and the server answers everything.",
    )
    workers: int = option(
        1, minimum=1, maximum=1000, help="Processes that serve the port; more than 1 need a store that they can share."
    )
    reload: bool = option(help="Restart when a Python file changes; for development.")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if (fault := _proxies_fault(self.forwarded_allow_ips)) is not None:
            raise OptionError(
                f"--forwarded-allow-ips: {fault}; give addresses or networks separated by commas, such as "
                "10.0.0.1,192.168.0.0/16, unix for the clients of a Unix socket, or * alone"
            )
        if not _is_path(self.root_path):
            raise OptionError(
                f"--root-path: {self.root_path!r} is not the beginning of a URL's path; give it without host and "
                "query, such as /bot or /tools/bot"
            )
        if self.root_path_kept and not self.root_path.strip("/"):
            raise OptionError("--root-path-kept says that requests have a path in front: name it with --root-path")
        if self.workers > 1 and self.reload:
            raise OptionError("--workers and --reload: a reloader serves in one process; leave one of them out")
        if not re.fullmatch("0?[0-7]{3}", self.uds_mode):
            raise OptionError(f"--uds-mode: {self.uds_mode!r} are no permissions; give three octal digits, such as 660")


def _is_path(text: str) -> bool:
    """Return whether a text is the beginning of a URL's path, or empty. It needs no slash at its ends."""
    segments = text.strip("/").split("/")
    return segments == [""] or (
        text == text.strip()
        and text.isprintable()
        and not set('?#"\\') & set(text)
        and not {"", ".", ".."} & set(segments)
        and not segments[0].endswith(":")
    )


def _proxies_fault(text: str | None) -> str | None:
    """The fault in the addresses of proxies, or None. uvicorn would accept an invalid address and trust no proxy."""
    parts = [part.strip() for part in (text or "").split(",")]
    if parts == ["*"]:
        return None
    for part in parts:
        if part in ("", UNIX_CLIENT[0]):
            continue
        try:
            ip_network(part)
        except ValueError as error:
            return str(error)
    return None


SHORTEST_HASH_KEY = 16


class LogOptions(Options):
    """The log, which is written to standard error."""

    log_format: Literal["json", "text"] = option("text", help="The format of log lines.")
    verbose: bool = option(help="Log details that help when something is wrong.")
    log_client: bool = option(help="Log the address of the client with each request.")
    log_caller: Literal["off", "hashed", "plain"] = option(
        "off", help="Whether each request's log line has its caller: the name of the key, or the subject of the token."
    )
    log_contact: bool = option(help="Log a hash of the contact with each request, by which its requests can be found.")
    log_hash_key: Secret | None = option(
        help="The secret that keys the hashes of callers and contacts: at least 16 characters, such as 24 random bytes."
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        flag = "--log-contact" if self.log_contact else "--log-caller hashed" if self.log_caller == "hashed" else None
        advice = (
            "create one with: openssl rand -base64 24 > log-hash.key, and name the file in JIMS_LOG_HASH_KEY_FILE; "
            "servers with the same key log the same hashes"
        )
        if flag is not None and self.log_hash_key is None:
            raise OptionError(
                f"{flag} needs --log-hash-key, without which anybody can find a contact by trying: {advice}"
            )
        if self.log_hash_key is not None and len(self.log_hash_key.reveal()) < SHORTEST_HASH_KEY:
            raise OptionError(f"--log-hash-key has fewer than {SHORTEST_HASH_KEY} characters: {advice}")


COMMAND_OPTIONS: list[type[Options]] = [ServerOptions, MetricsOptions, LogOptions]

OPTIONS_OF_EVERY_APP = frozenset(
    {"app", "drain_time"}
    | {
        spec.key
        for cls in (ServerOptions, LogOptions, ConfigOptions, PluginOptions, CertificateOptions)
        for spec in specs(cls)
    }
) - {"log_caller", "log_contact", "log_hash_key"}
"""The keys of the options that have an effect on a `jimsapi.asgi.App`, too. All others are options of the chat API."""


class ChatOption(click.Option):
    """A flag that has no effect on a `jimsapi.asgi.App`."""


class GroupedCommand(click.Command):
    """A command whose help lists the options of the chat API below those of every app."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        for parameter in self.get_params(context):
            if isinstance(parameter, click.Option) and (row := parameter.get_help_record(context)) is not None:
                rows[isinstance(parameter, ChatOption)].append(row)
        headings = ("Options of every app", "Options of the chat API (a jimsapi.asgi.App does not start with them)")
        for heading, of_chat in zip(headings, (False, True), strict=True):
            if rows[of_chat]:
                with formatter.section(heading):
                    formatter.write_dl(rows[of_chat])


def all_options(plugins: PluginManager | None = None, broken: list[StartError] | None = None) -> list[Owned]:
    """Return the options of the command, of the core, and of `plugins` (default: the built-in plugins).

    Raises `PluginError` if a plugin declares an invalid option; if `broken` is a list, that gets the error instead.
    """
    if plugins is None:
        plugins = PluginManager(builtin_plugins(), installed=False)
    own: list[type[Options]] = [CoreOptions, ConfigOptions, PluginOptions, *COMMAND_OPTIONS]
    return [*(Owned(cls, OWN_DISTRIBUTION) for cls in own), *declared_options(plugins, broken)]


def with_options(owned: Sequence[Owned]) -> Callable[[click.Command], click.Command]:
    """Return a function that adds flags to a command: those of `owned`, and hidden ones for first-party plugins that
    are not installed."""
    flags: dict[str, click.Option] = {}
    for item in owned:
        for spec in specs(item.options):
            if spec.key not in flags:  # if two plugins declare an option, the start raises
                flags[spec.key] = _flag(spec)
    for key in FIRST_PARTY_AUTH | FIRST_PARTY_REPORTING:
        if key not in flags:
            flags[key] = _hidden_flag(key)

    def add(command: click.Command) -> click.Command:
        command.params += flags.values()  # all commands share them, since each start makes every command
        return command

    return add


def _flag(spec: OptionSpec) -> click.Option:
    has_default = spec.default not in (None, "", (), False) and not spec.required
    default = f" Default: {_default_text(spec.default)}." if has_default else ""
    text = f"{spec.help}{default} [{spec.variable}]"
    kind = click.Option if spec.key in OPTIONS_OF_EVERY_APP else ChatOption
    if spec.type is bool:
        return kind([spec.flag, spec.key], is_flag=True, flag_value=True, default=None, help=text)
    metavar = "|".join(spec.choices) or {int: "N", float: "N", Path: "FILE"}.get(spec.type, "TEXT")
    return kind([spec.flag, spec.key], type=str, multiple=spec.repeats, metavar=metavar, help=text)


def _hidden_flag(key: str) -> click.Option:
    """A hidden flag of a plugin that is not installed. Without it the error would be "no such option", not the name of
    the missing distribution."""
    names = ["--" + key.replace("_", "-"), key]
    if key in FIRST_PARTY_REPORTING:
        return click.Option(names, is_flag=True, flag_value=True, default=None, hidden=True)
    return click.Option(names, hidden=True)


def _default_text(default: Any) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)
