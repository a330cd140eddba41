"""Options: where their values come from, what is refused, and that a secret is never shown."""

import base64
import gc
import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from jimsapi import Options, Secret, create_api, option
from jimsapi.builtin import builtin_plugins
from jimsapi.cli.options import ServerOptions
from jimsapi.plugins.compose import resolve_settings
from jimsapi.plugins.core import CoreOptions, missing_reporting_plugins
from jimsapi.plugins.discovery import PluginEntry
from jimsapi.plugins.errors import OptionError, StartError
from jimsapi.plugins.manager import Implementation, PluginManager
from jimsapi.plugins.options import Owned, Settings, near_misses, specs
from jimsapi.plugins.secrets import matches_any, redact, secret_lines, url_secrets

pytestmark = pytest.mark.anyio


class Tape(Options, prefix="tape"):
    secret: Secret | None = option(help="x")
    keys: tuple[Secret, ...] = option(help="x")
    labels: tuple[str, ...] = option(("a",), help="x")
    speed: int = option(3, minimum=1, maximum=9, help="x")
    gain: float = option(0.5, minimum=0, help="x")
    loud: bool = option(help="x")
    mode: Literal["play", "stop"] = option("stop", help="x")
    path: Path | None = option(help="x")
    title: str | None = option(help="x")


def resolve(given: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Tape:
    return Settings([Owned(Tape, "acme-tape")], given or {}, environ or {}).get(Tape)


@pytest.mark.parametrize(
    ("given", "variable", "file", "expected"),
    [
        ("flag", "variable", "file", "flag"),
        (None, "variable", "file", "variable"),
        (None, None, "file", "file"),
        (None, None, None, None),
        ("", "variable", "file", "variable"),
        ("", "", "file", "file"),
        ("", "", None, None),
    ],
)
def test_a_flag_comes_before_a_variable_before_a_file_before_the_default_and_empty_is_unset(
    tmp_path: Path, given: str | None, variable: str | None, file: str | None, expected: str | None
) -> None:
    environ = {}
    if variable is not None:
        environ["JIMS_TAPE_SECRET"] = variable
    if file is not None:
        (tmp_path / "secret").write_text(file + "\n")
        environ["JIMS_TAPE_SECRET_FILE"] = str(tmp_path / "secret")
    secret = resolve({"tape_secret": given}, environ).secret
    assert (secret and secret.reveal()) == expected


def test_a_file_gives_one_secret_a_line_where_the_option_repeats(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\n\r\ntwo\r\n")
    keys = resolve({}, {"JIMS_TAPE_KEYS_FILE": str(tmp_path / "keys")}).keys
    assert [key.reveal() for key in keys] == ["one", "two"]


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe"])
def test_a_secret_s_file_that_cannot_be_used_stops_the_start_and_is_named(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(OptionError, match=f"JIMS_TAPE_SECRET_FILE: .*{file}"):
        resolve({}, {"JIMS_TAPE_SECRET_FILE": str(file)})


@pytest.mark.parametrize(
    ("flags", "variable", "file", "expected"),
    [
        (["flag", "", "two"], "variable", "one\ntwo\n", ["flag", "two", "variable", "one", "two"]),
        ("flag", "variable", None, ["flag", "variable"]),
        (None, "a,b c;d\te", None, ["a,b c;d\te"]),
        ("", "", "file", ["file"]),
        (
            [],
            None,
            "\ufeff one\x85 half \r\n\r\n two\u2028half\rthree",
            ["one\x85 half", "two\u2028half", "three"],
        ),
        (None, None, "# comment\none\n #two\nthr#ee", ["one", "thr#ee"]),
        (None, None, None, []),
    ],
)
def test_all_sources_of_a_repeated_secret_count_together(
    tmp_path: Path, flags: Any, variable: str | None, file: str | None, expected: list[str]
) -> None:
    environ = {} if variable is None else {"JIMS_TAPE_KEYS": variable}
    if file is not None:
        (tmp_path / "keys").write_bytes(file.encode())
        environ["JIMS_TAPE_KEYS_FILE"] = str(tmp_path / "keys")
    settings = Settings([Owned(Tape, "acme-tape")], {"tape_keys": flags}, environ)
    assert [key.reveal() for key in settings.get(Tape).keys] == expected
    assert settings.is_given("tape_keys") is bool(expected)
    sources = settings.sources("tape_keys")
    in_file = len(secret_lines(file or ""))
    assert [key.reveal() for key in sources.given] == expected[: len(expected) - in_file]
    assert (sources.file, sources.variable) == (
        None if file is None else tmp_path / "keys",
        "JIMS_TAPE_KEYS_FILE",
    )


def test_an_unusable_file_of_a_repeated_secret_stops_the_start_also_beside_a_flag(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="JIMS_TAPE_KEYS_FILE: cannot read"):
        resolve({"tape_keys": ["flag"]}, {"JIMS_TAPE_KEYS_FILE": str(tmp_path / "nowhere")})


def test_of_a_repeated_option_that_is_no_secret_the_first_source_counts_alone() -> None:
    assert resolve({"tape_labels": ["flag"]}, {"JIMS_TAPE_LABELS": "variable"}).labels == ("flag",)


@pytest.mark.parametrize(
    ("field", "content", "expected"),
    [
        ("speed", "7\n", 7),
        ("gain", "1e1\r\n", 10.0),
        ("loud", "yes\n", True),
        ("mode", "play\n", "play"),
        ("path", "/x/y\n", Path("/x/y")),
        ("title", " two words \r\n\n", " two words "),
        ("labels", "b\n# comment\n\nc d\n", ("b", "c d")),
    ],
)
def test_an_option_of_every_type_is_read_from_a_file(tmp_path: Path, field: str, content: str, expected: Any) -> None:
    (tmp_path / "value").write_bytes(content.encode())
    environ = {f"JIMS_TAPE_{field.upper()}_FILE": str(tmp_path / "value")}
    settings = Settings([Owned(Tape, "acme-tape")], {}, environ)
    assert getattr(settings.get(Tape), field) == expected
    assert settings.is_given(f"tape_{field}")
    assert settings.warnings == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "JIMS_TAPE_SPEED_FILE: cannot read .*: No such file"),
        ("\n", "JIMS_TAPE_SPEED_FILE: .* is empty; put the value in it, or unset the variable"),
        ("fast\n", "JIMS_TAPE_SPEED_FILE: 'fast' is not a whole number from 1 to 9"),
    ],
)
def test_a_file_that_holds_no_usable_value_stops_the_start(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "speed").write_text(content)
    with pytest.raises(OptionError, match=message):
        resolve({}, {"JIMS_TAPE_SPEED_FILE": str(tmp_path / "speed")})


@pytest.mark.parametrize("field", ["title", "secret", "path", "speed", "mode"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("7\n# the live one\n", "has 2 lines, and --tape-FIELD has one value; leave only the line with the value"),
        ("\n7", "has 2 lines"),
        ("7\r8\r\n9\n", "has 3 lines"),
        ("7\x00", r"contains the control character U\+0000; write the value as text without"),
        ("\x1b[1m7\n", r"contains the control character U\+001B"),
        ("7\t", r"contains the control character U\+0009"),
        ("7\x85", r"contains the control character U\+0085"),
    ],
)
def test_a_file_of_one_value_with_more_in_it_stops_the_start(
    tmp_path: Path, field: str, content: str, message: str
) -> None:
    file = tmp_path / "value"
    file.write_bytes(content.encode())
    variable = f"JIMS_TAPE_{field.upper()}_FILE"
    with pytest.raises(OptionError, match=f"{variable}: {file} {message.replace('FIELD', field)}") as refused:
        Settings([Owned(Tape, "acme-tape")], {}, {variable: str(file)})
    assert "live" not in str(refused.value)


SERVICE_LINKS = {
    "JIMS_SERVICE_HOST": "10.0.0.1",
    "JIMS_SERVICE_PORT": "8080",
    "JIMS_PORT": "tcp://10.0.0.1:8080",
    "JIMS_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "JIMS_PORT_8080_TCP_PROTO": "tcp",
    "JIMS_PORT_8080_TCP_PORT": "8080",
    "JIMS_PORT_8080_TCP_ADDR": "10.0.0.1",
}


def test_the_variables_of_a_kubernetes_service_named_jims_are_not_read_and_warned_of() -> None:
    def settled(**given: Any) -> Settings:
        return resolve_settings(PluginManager(builtin_plugins()), (ServerOptions,), given, SERVICE_LINKS)

    settings = settled()
    assert (settings.get(ServerOptions).port, settings.is_given("port")) == (8080, False)
    [warning] = settings.warnings
    assert warning == (
        "JIMS_PORT=tcp://10.0.0.1:8080 is not read: Kubernetes set it for a service of that name; set "
        "enableServiceLinks: false in the pod, or give --port, or rename the service"
    )
    settings = settled(port=9)
    assert (settings.get(ServerOptions).port, settings.warnings) == (9, [])


def test_a_kubernetes_service_s_variable_gives_way_to_the_option_s_file(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("81\n")
    environ = {"JIMS_PORT": "udp://10.0.0.1:8080", "JIMS_PORT_FILE": str(tmp_path / "port")}
    settings = Settings([Owned(ServerOptions, "jimsapi")], {}, environ)
    assert settings.get(ServerOptions).port == 81
    assert len(settings.warnings) == 1


def test_a_plugin_reads_an_option_of_the_command_by_its_key() -> None:
    settings = Settings([Owned(ServerOptions, "jimsapi"), Owned(Tape, "acme-tape")], {"host": "::1"}, {})
    assert [settings.value(key) for key in ("host", "root_path", "tape_speed")] == ["::1", "", 3]
    assert Settings([Owned(Tape, "acme-tape")], {}, {}).value("host") is None


def test_a_variable_comes_before_its_file_and_the_file_that_is_not_read_is_warned_of() -> None:
    environ = {"JIMS_TAPE_SPEED": "7", "JIMS_TAPE_SPEED_FILE": "/nowhere"}
    settings = Settings([Owned(Tape, "acme-tape")], {}, environ)
    assert settings.get(Tape).speed == 7
    assert settings.warnings == [
        "JIMS_TAPE_SPEED_FILE is not read, since JIMS_TAPE_SPEED is set too; unset one of them"
    ]


def test_an_option_whose_own_variable_ends_in_file_is_nobody_else_s_file(tmp_path: Path) -> None:
    class Reel(Options, prefix="reel"):
        tape: str | None = option(help="x")
        tape_file: str | None = option(help="x")

    settings = Settings([Owned(Reel, "acme-reel")], {}, {"JIMS_REEL_TAPE_FILE": "/nowhere", "JIMS_REEL_TAPE": "b"})
    assert (settings.get(Reel).tape, settings.get(Reel).tape_file) == ("b", "/nowhere")
    assert settings.warnings == []


def test_values_of_every_type_are_read_from_text() -> None:
    texts = {
        "SPEED": " 7 ",
        "GAIN": "1e1",
        "LOUD": "Yes",
        "MODE": "play",
        "PATH": "/x/y",
        "LABELS": "b",
        "TITLE": " t ",
    }
    tape = resolve({}, {f"JIMS_TAPE_{name}": text for name, text in texts.items()})
    assert (tape.speed, tape.gain, tape.loud, tape.mode) == (7, 10.0, True, "play")
    assert (tape.path, tape.labels, tape.title) == (Path("/x/y"), ("b",), " t ")


def test_keywords_may_be_of_the_type_itself() -> None:
    given = {"speed": 7, "gain": 1, "loud": True, "path": Path("x"), "labels": ["b", "c"], "secret": Secret("s")}
    tape = resolve({f"tape_{name}": value for name, value in given.items()})
    assert (tape.speed, tape.gain, tape.loud, tape.path, tape.labels) == (7, 1.0, True, Path("x"), ("b", "c"))
    assert tape.secret is not None
    assert tape.secret.matches("s")


def test_what_is_given_as_false_comes_before_a_variable() -> None:
    assert resolve({"tape_loud": False}, {"JIMS_TAPE_LOUD": "1"}).loud is False
    assert resolve({"tape_gain": 0}, {"JIMS_TAPE_GAIN": "1"}).gain == 0


def test_a_tuple_takes_one_value_several_and_drops_empty_ones() -> None:
    assert resolve({"tape_labels": "b"}).labels == ("b",)
    assert resolve({"tape_labels": ("b", "", "c")}).labels == ("b", "c")
    assert resolve({"tape_labels": ()}).labels == ("a",)
    assert resolve({"tape_labels": [""]}).labels == ("a",)


@pytest.mark.parametrize(
    ("key", "value", "described"),
    [
        ("speed", "fast", "'fast' is not a whole number from 1 to 9"),
        ("speed", "0", "'0' is not a whole number from 1 to 9"),
        ("speed", 10, "10 is not a whole number from 1 to 9"),
        ("speed", "3.5", "'3.5' is not a whole number from 1 to 9"),
        ("speed", 3.0, "3.0 is not a whole number from 1 to 9"),
        ("speed", True, "True is not a whole number from 1 to 9"),
        ("gain", "nan", "'nan' is not a number of at least 0"),
        ("gain", "-1", "'-1' is not a number of at least 0"),
        pytest.param("gain", 10**400, "is not a number of at least 0", id="gain-huge"),
        ("loud", "perhaps", "'perhaps' is not true or false"),
        ("loud", 2, "2 is not true or false"),
        ("mode", "rewind", "'rewind' is not one of play, stop"),
        ("mode", ["play"], "is not one of play, stop"),
        ("path", 3, "3 is not a path"),
        ("title", 3, "3 is not text"),
        ("labels", [3], "3 is not text"),
    ],
)
def test_a_value_of_another_type_or_range_is_refused_and_the_option_named(key: str, value: Any, described: str) -> None:
    with pytest.raises(OptionError) as refused:
        resolve({f"tape_{key}": value})
    assert f"--tape-{key}: " in str(refused.value)
    assert described in str(refused.value)


def test_the_bounds_of_a_large_number_are_shown_in_full() -> None:
    class Disk(Options, prefix="disk"):
        size: int = option(1, minimum=1, maximum=1_125_899_906_842_624, help="x")

    with pytest.raises(OptionError, match=r"'0' is not a whole number from 1 to 1125899906842624$"):
        Settings([Owned(Disk, "acme-disk")], {"disk_size": "0"}, {}).get(Disk)


def test_a_faulty_variable_is_named_as_the_variable() -> None:
    with pytest.raises(OptionError, match="JIMS_TAPE_SPEED: 'x' is not"):
        resolve({}, {"JIMS_TAPE_SPEED": "x"})


def test_an_error_about_a_secret_does_not_show_it() -> None:
    with pytest.raises(OptionError) as refused:
        resolve({"tape_secret": 12345})
    assert "12345" not in str(refused.value)


def test_an_option_without_default_must_be_given() -> None:
    class Needy(Options, prefix="needy"):
        name: str = option(help="x")

    with pytest.raises(OptionError, match="--needy-name is required: give it, or set JIMS_NEEDY_NAME"):
        Settings([Owned(Needy, "acme")], {}, {})
    assert Settings([Owned(Needy, "acme")], {"needy_name": "n"}, {}).get(Needy).name == "n"


def test_instances_are_frozen_and_made_by_hand_in_tests() -> None:
    tape = Tape(secret=Secret("s"))
    assert (tape.speed, tape.keys, tape.labels, tape.loud, tape.path) == (3, (), ("a",), False, None)
    with pytest.raises(AttributeError, match="frozen"):
        tape.speed = 4
    with pytest.raises(TypeError, match="no option sped"):
        Tape(sped=4)


def test_what_was_not_declared_cannot_be_asked_for() -> None:
    class Other(Options):
        pass

    with pytest.raises(OptionError, match="Other was not declared: return it from jimsapi_options"):
        Settings([Owned(Tape, "acme")], {}, {}).get(Other)


@pytest.mark.parametrize("annotation", ["list[str]", "int | str", "dict[str, str]", "bytes", "tuple[int, str]"])
def test_a_type_that_no_flag_can_have_is_refused_with_the_class(annotation: str) -> None:
    odd = type("Odd", (Options,), {"__annotations__": {"x": annotation}, "x": option(help="x")})
    with pytest.raises(OptionError, match=r"Odd\.x: an option cannot be a"):
        specs(odd)


@pytest.mark.parametrize("shown", [repr, str, "{}".format, lambda secret: f"{secret!r:>40}"])
def test_a_secret_is_not_shown(shown: Any) -> None:
    for value in (Secret("sesame"), (Secret("sesame"),), Tape(secret=Secret("sesame"), keys=(Secret("sesame"),))):
        try:
            text = shown(value)
        except TypeError:  # a format that the value does not take shows nothing either
            continue
        assert "sesame" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("invalid key abra/cadabra", "invalid key ***"),
        ("https://host/?key=abra%2Fcadabra", "https://host/?key=***"),
        ("abra/cadabra-and-more", "***"),
        ("abc", "abc"),
        ("abrac", "abrac"),
        ("", ""),
    ],
)
def test_living_secrets_are_replaced_in_a_text_the_longest_first_and_very_short_ones_stay(
    text: str, shown: str
) -> None:
    living = [Secret("abra/cadabra"), Secret("abra/cadabra-and-more"), Secret("abc"), Secret("")]
    assert redact(text) == shown
    assert len(living) == 4


def in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("write", [str, repr, ascii, str.encode, json.dumps, in_json, KeyError])
@pytest.mark.parametrize("secret", ['pa"ss\\wörd\n/x', "pa'ss\\wörd", 'it\'s "so"', "鍵\U0001f511\x7f\x85", "a\\'b"])
@pytest.mark.parametrize("beside", ["", "'", '"'])
def test_a_secret_is_replaced_as_repr_and_json_write_it(write: Any, secret: str, beside: str) -> None:
    living = Secret(secret)
    text = str(write(f"{beside}no {secret}!"))
    assert redact(text).strip("b\\\"'") == "no ***!"
    assert living.matches(secret)


@pytest.mark.parametrize("user", ["", "u:", "me:", "ann:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("secret", ["topsecretkey123", "~~~???>>>ü", "abcd"])
def test_a_secret_is_replaced_in_base64_wherever_it_begins_in_it(user: str, encode: Any, secret: str) -> None:
    living = Secret(secret)
    for after in ("", "!", ":more"):
        basic = encode(f"{user}{secret}{after}".encode()).decode()
        assert redact(f"401 for Authorization: Basic {basic}, at /x") == "401 for Authorization: Basic ***, at /x"
    assert living.matches(secret)


def test_a_long_text_beside_base64_is_searched_in_a_time_in_proportion_to_its_length() -> None:
    """Else it would be minutes for what a caller may send in one message."""
    living = Secret("topsecretkey123")
    long = "a" * 500_000
    assert redact(f"{long} {base64.b64encode(b'me:topsecretkey123').decode()} {long}") == f"{long} *** {long}"
    assert living.matches("topsecretkey123")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://127.0.0.1:1/postgres: no answer", "postgresql://127.0.0.1:1/***: no answer"),
        ("postgres://h/d", "postgres://h/d"),
        ("postgres+asyncpg://h/d", "postgres+asyncpg://h/d"),
        ("jimsapi_postgres/store.py", "jimsapi_postgres/store.py"),
        ("pip install jimsapi-postgres", "pip install jimsapi-postgres"),
        ("no user 'postgres'", "no user '***'"),
        ("key=postgres", "key=***"),
        (repr("key:\npostgres"), r"'key:\n***'"),
        ("?dsn=user%3Dpostgres%20", "?dsn=user%3D***%20"),
        ("postgres://postgres:postgres@h/postgres", "postgres://***:***@h/***"),
    ],
)
def test_a_secret_that_is_a_short_word_is_replaced_as_a_whole_word_and_not_as_a_scheme(text: str, shown: str) -> None:
    living = Secret("postgres")
    assert redact(text) == shown
    assert living.matches("postgres")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://u:secretpw@h/db", ["secretpw"]),
        ("redis://:secretpw@h", ["secretpw"]),
        ("redis://:first@h1,redis://:second@h2", ["first", "second"]),
        ("postgresql://u:secretpw@h/db?application_name=me@x", ["secretpw"]),
        ("postgresql://u:pa%40ss@h/db", ["pa%40ss", "pa@ss"]),
        ("postgresql://u:p@ss@h/db", ["p@ss"]),
        ("postgresql://u:a/b@c@h/db", ["a/b@c"]),
        ("postgresql:///db?host=h&user=u&password=secretpw", ["secretpw"]),
        ("postgresql://h/db?sslpassword=se+cret&sslkey=/key.pem", ["se cret", "se+cret"]),
        ("https://h/?api_key=k1&access_token=t2&CLIENT_SECRET=s3&page=4", ["k1", "s3", "t2"]),
        ("https://h:8080/path", []),
        ("postgresql://u@h/db", []),
        ("play?key=loud", []),
    ],
)
def test_the_secrets_of_a_url_are_its_password_and_the_parameters_that_are_named_like_one(
    url: str, kept: list[str]
) -> None:
    assert [secret.reveal() for secret in url_secrets(url)] == kept


def test_a_secret_that_is_no_longer_used_is_forgotten() -> None:
    secret = Secret("hocus-pocus")
    assert redact("hocus-pocus") == "***"
    del secret
    gc.collect()
    assert redact("hocus-pocus") == "hocus-pocus"


@pytest.mark.parametrize(
    ("candidate", "matches"), [("one", True), ("鍵", True), ("鍵".encode().decode("latin-1"), True), ("two", False)]
)
def test_one_of_many_secrets_matches_also_if_they_come_one_by_one(candidate: str, matches: bool) -> None:
    assert matches_any((Secret(value) for value in ("x", "one", "鍵")), candidate) is matches
    assert matches_any([], candidate) is False


@pytest.mark.parametrize(
    ("secret", "candidate", "matches"),
    [
        ("sesame", "sesame", True),
        ("sesame", "Sesame", False),
        ("sesame", "sesame ", False),
        ("sesame", "", False),
        ("sesame", "sesam\N{LATIN SMALL LETTER E WITH ACUTE}", False),
        ("schlüssel", "schlüssel", True),
        ("schlüssel", "schlüssel".encode().decode("latin-1"), True),
        ("schlüssel", "schlussel", False),
        ("鍵", "鍵", True),
        ("鍵", "鍵".encode().decode("latin-1"), True),
        ("?", "鍵", False),
        ("ä", "\udce4", False),
    ],
)
def test_a_secret_matches_itself_however_a_header_carries_it(secret: str, candidate: str, matches: bool) -> None:
    assert Secret(secret).matches(candidate) is matches


def test_a_secret_survives_a_reloader_s_pickle() -> None:
    assert pickle.loads(pickle.dumps(Secret("sesame"))).matches("sesame")


def test_a_variable_that_looks_like_a_misspelt_option_is_told_and_others_are_left_alone() -> None:
    environ = {
        "JIMS_THREAD_QUEU": "1",
        "JIMS_MODEL": "x",
        "OTHER": "y",
        "JIMS_THREAD_QUEUE": "2",
        "JIMS_API_KEY_FILE": "f",
        "JIMS_STORE_FILE": "g",
        "JIMS_STOR_FILE": "h",
        "JIMS_SSL_KEY_FILE": "i",
        "JIMS_MODEL_FILE": "j",
    }
    assert near_misses(environ, ["thread_queue", "api_key", "store", "ssl_keyfile"]) == [
        ("JIMS_SSL_KEY_FILE", "JIMS_SSL_KEYFILE"),
        ("JIMS_STOR_FILE", "JIMS_STORE_FILE"),
        ("JIMS_THREAD_QUEU", "JIMS_THREAD_QUEUE"),
    ]


async def echo(ctx: Any) -> None:
    ctx.send_message("hi")


async def test_a_near_miss_is_a_warning_and_not_a_refusal(
    site: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JIMS_API_KEYS", "k")
    with caplog.at_level(logging.WARNING):
        async with create_api(echo, store="memory:").lifespan():
            pass
    assert "JIMS_API_KEYS is set but is not an option; did you mean JIMS_API_KEY?" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"api_kye": "k"}, "there is no option api_kye; did you mean api_key?"),
        ({"zzz": 1}, "there is no option zzz"),
        ({"max_body": "big"}, "--max-body: 'big' is not a whole number"),
        ({"max_body": 0}, "--max-body: 0 is not a whole number"),
        ({"api_key": 7}, "--api-key: the value is not text"),
        ({"durability": "never"}, "--durability: 'never' is not one of durable, relaxed"),
        ({"auth_order": "door"}, "--auth-order names door"),
        ({"store": "tape:x"}, "--store tape:x: no installed plugin keeps threads there"),
        ({"store": "sqlite://x.db"}, "--store sqlite://x.db: invalid SQLite URL; use sqlite:///relative.db"),
        ({"store": "db://user:sesame@host/x"}, r"--store db://.*\*\*\*@host/x: no installed plugin"),
    ],
)
async def test_a_faulty_keyword_of_create_api_is_reported_when_it_starts(
    site: Path, settings: dict[str, Any], message: str
) -> None:
    api = create_api(echo, **({"store": "memory:"} | settings))
    with pytest.raises(StartError, match=message):
        async with api.lifespan():
            pass


@pytest.mark.parametrize(
    ("given", "environ", "source"),
    [
        ({"authentik_url": "https://id"}, {}, "--authentik-url"),
        ({}, {"JIMS_AUTHENTIK_URL": "https://id"}, "JIMS_AUTHENTIK_URL"),
    ],
)
def test_an_auth_option_whose_plugin_is_not_installed_stops_the_start(
    given: dict[str, Any], environ: dict[str, str], source: str
) -> None:
    plugins = PluginManager(builtin_plugins(), installed=False)
    with pytest.raises(StartError, match=f"{source} is set, but jimsapi-authentik is not installed"):
        resolve_settings(plugins, [], given, environ)


def test_error_reporting_that_is_asked_for_by_keyword_without_its_plugin_stops_the_start() -> None:
    plugins = PluginManager(builtin_plugins(), installed=False)
    with pytest.raises(StartError, match="--enable-sentry is set, but jimsapi-sentry is not installed"):
        resolve_settings(plugins, [], {"enable_sentry": True}, {})


@pytest.mark.parametrize(
    ("value", "warned"), [("1", True), ("true", True), ("what", True), ("", False), (" ", False), ("False", False)]
)
def test_a_variable_that_switches_on_absent_error_reporting_is_known(value: str, warned: bool) -> None:
    environ = {"JIMS_ENABLE_SENTRY": value}
    known = resolve_settings(PluginManager(builtin_plugins(), installed=False), [], {}, environ).known
    assert missing_reporting_plugins(known, environ) == [("JIMS_ENABLE_SENTRY", "jimsapi-sentry")] * warned
    assert missing_reporting_plugins(known | {"enable_sentry"}, environ) == []
    files = {"JIMS_ENABLE_SENTRY_FILE": value}
    assert missing_reporting_plugins(known, files) == [("JIMS_ENABLE_SENTRY_FILE", "jimsapi-sentry")] * warned


def test_what_a_hook_says_to_the_operator_is_said_as_it_is_and_its_own_mistakes_name_the_plugin() -> None:
    def configured_wrongly(settings: Settings) -> None:
        raise StartError("--tape-path: there is no such file")

    def mistaken(settings: Settings) -> None:
        settings.get(CoreOptions)

    entry = PluginEntry("tape", "acme_tape", "acme-tape", "1.0")
    settings = Settings([], {}, {})
    for function, message in (
        (configured_wrongly, "^--tape-path: there is no such file$"),
        (mistaken, r"^plugin tape \(acme_tape, .*CoreOptions was not declared.*pip uninstall acme-tape$"),
    ):
        with pytest.raises(StartError, match=message):
            Implementation(entry, "jimsapi_auth_provider", function, ("settings",))(settings=settings)
