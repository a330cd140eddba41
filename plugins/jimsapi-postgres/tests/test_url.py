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
    with pytest.raises(ValueError, match=r"give|Known|no URL|written") as refused:
        jimsapi_thread_store(url)
    assert "ann" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["sqlite:///a.db", "memory:", "mysql://h/d", "postgres+asyncpg://h/d", "postgresqlx://h/d"]
)
def test_other_urls_are_left_to_others(url: str) -> None:
    assert jimsapi_thread_store(url) is None
