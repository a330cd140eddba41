"""The contract of resolvers, and what only this plugin promises."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from jimsapi import ByExternalId, Inbound, New
from jimsapi.asgi.testing import TestClient
from jimsapi.testing import ThreadResolverContract

from jimsapi_daily.resolver import DailyResolver

HI = Inbound(contact_id="ann", message="hi")


class TestDaily(ThreadResolverContract):
    distribution = "jimsapi-daily"
    settings = {"daily_timezone": "UTC"}
    claimed = (HI,)
    left = (Inbound(contact_id="ann", message="hi", thread_id=UUID(int=1)),)


@pytest.mark.anyio
@pytest.mark.parametrize(("timezone", "day"), [("UTC", "2026-03-01"), ("Asia/Tokyo", "2026-03-02")])
async def test_days_begin_in_the_time_zone(timezone: str, day: str) -> None:
    resolver = DailyResolver(ZoneInfo(timezone), clock=lambda: datetime(2026, 3, 1, 20, tzinfo=UTC))
    assert await resolver.resolve(HI) == [ByExternalId(f"daily:{day}:ann"), New(external_id=f"daily:{day}:ann")]


@pytest.mark.anyio
async def test_an_unknown_time_zone_stops_the_start(jimsapi_client: Callable[..., TestClient]) -> None:
    with pytest.raises(RuntimeError, match="--daily-timezone: there is no time zone 'Mars'"):
        async with jimsapi_client(daily_timezone="Mars"):
            pass
