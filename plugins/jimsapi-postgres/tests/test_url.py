"""What `--store` takes, and what it refuses."""

import pytest
from jimsapi_postgres import jimsapi_thread_store
from jimsapi_postgres.url import parse_url


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2"]
)
def test_every_spelling_names_the_same_place(scheme: str) -> None:
    target = parse_url(f"{scheme}://ann:secret@db.example.org:6432/chat")
    assert target.dsn == "postgresql://ann:secret@db.example.org:6432/chat?target_session_attrs=read-write"
    assert target.name == "postgresql://db.example.org:6432/chat"


def test_what_is_shown_holds_no_password() -> None:
    target = parse_url("postgresql://ann:se%40cret@h/d?password=hidden")
    assert "se%40cret@h/d" in target.dsn
    for shown in (target.name, repr(target), str(target)):
        assert "cret" not in shown
        assert "hidden" not in shown


def test_a_password_may_hold_an_at_sign_or_its_code() -> None:
    assert parse_url("postgresql://ann:p@ss:w%3Ard%25@h/d").dsn.startswith("postgresql://ann:p%40ss%3Aw%3Ard%25@h/d?")


def test_parameters_are_passed_on_and_those_of_other_drivers_understood() -> None:
    dsn = parse_url(
        "postgresql+asyncpg://h/d?ssl=require&prepared_statement_cache_size=0&sslrootcert=/ca%20file.pem"
        "&target_session_attrs=any&keepalives=1&application_name=chat"
    ).dsn
    assert dsn == (
        "postgresql://h/d?sslrootcert=/ca%20file.pem&target_session_attrs=any&application_name=chat&sslmode=require"
    )
    assert parse_url("postgresql:///d?host=/run/pg").name == "postgresql:///run/pg/d"
    assert parse_url("postgresql://h/d?connect_timeout=2.5").connect_timeout == 2.5


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:", "postgresql:/d", "postgresql+mysql://h/d", "postgresql://h/d?x=1",
        "postgresql://h/d?sslmod=require", "postgresql://h/d?connect_timeout=soon", "postgresql://h/d?connect_timeout=0",
        "postgresql://[::1/d", "postgresql://ann:pa#ss@h/d", "postgresql://h/d?novalue",
    ],
)  # fmt: skip
def test_a_faulty_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"give|known|not a URL|write") as refused:
        jimsapi_thread_store(url)
    assert "ann" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("postgresql://u:p@h:notaport/d", "'notaport'"),
        ("postgresql://h1:1,h2:x/d", "'x'"),
        ("postgresql://[::1]:x/d", "'x'"),
        ("postgresql://h:65536/d", "'65536'"),
        ("postgresql://h:0/d", "'0'"),
        ("postgresql:///d?host=h:x", "'x'"),
        ("postgresql:///d?host=h1,h2&port=1,x", "'x'"),
    ],
)
def test_a_port_that_is_no_number_is_refused_before_anything_connects(url: str, port: str) -> None:
    with pytest.raises(ValueError, match=f"the port {port} is not a whole number from 1 to 65535"):
        jimsapi_thread_store(url)


def test_a_password_that_looks_like_a_port_is_not_shown() -> None:
    with pytest.raises(ValueError, match="write a / in a password or a name as %2F") as refused:
        parse_url("postgresql://ann:hunter/2@h/d")
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h:/d", "postgresql://h1:1,h2/d", "postgresql://[::1]:5432/d", "postgresql://[::1]/d",
        "postgresql:///d?host=/run/a:b", "postgresql:///d?host=h1,h2&port=1,2", "postgresql://h/d@x",
    ],
)  # fmt: skip
def test_every_form_of_hosts_and_ports_that_asyncpg_knows_is_accepted(url: str) -> None:
    parse_url(url)


@pytest.mark.parametrize(
    "url", ["sqlite:///a.db", "memory:", "mysql://h/d", "postgres+asyncpg://h/d", "postgresqlx://h/d"]
)
def test_other_urls_are_left_to_others(url: str) -> None:
    assert jimsapi_thread_store(url) is None
