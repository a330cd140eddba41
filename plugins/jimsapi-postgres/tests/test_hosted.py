"""URLs as hosting services hand them out."""

import pytest
from jimsapi_postgres.url import parse_url


@pytest.mark.parametrize("parameter", ["channel_binding=prefer", "channel_binding=disable", "gssencmode=disable"])
def test_what_is_only_offered_may_be_left_out(parameter: str) -> None:
    target = parse_url(f"postgresql://ann:secret@db.example.org/chat?sslmode=require&{parameter}")
    assert target.dsn == ("postgresql://ann:secret@db.example.org/chat?sslmode=require&target_session_attrs=read-write")


@pytest.mark.parametrize("parameter", ["channel_binding=require", "gssencmode=require"])
def test_what_is_insisted_on_and_cannot_be_had_is_refused_with_what_to_say_instead(parameter: str) -> None:
    with pytest.raises(ValueError, match=r"is not supported; omit it, and set sslmode=verify-full") as refused:
        parse_url(f"postgresql://ann:secret@db.example.org/chat?sslmode=require&{parameter}")
    assert "secret" not in str(refused.value)
