"""The contract that every auth provider keeps."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from fake_authentik import FakeAuthentik

from jimsapi.testing import MetricsContract
from jimsapi.testing.auth import AuthProviderContract, Credential


def bearer(token: str) -> Credential:
    return {"authorization": f"Bearer {token}"}


class TestAuthentik(AuthProviderContract):
    distribution = "jimsapi-authentik"
    secrets = ("token-of-ann", "token-of-bob")
    good: Mapping[str, Credential] = {"ann": bearer("token-of-ann"), "bob": bearer("token-of-bob")}
    foreign = ({"authorization": "Basic YW5uOnNlY3JldA=="}, {"x-ticket": "token-of-ann"})
    malformed = (bearer("two words"), bearer("a\u00e4"), bearer("=="))
    wrong = (bearer("token-of-nobody"),)
    expired = (bearer("expired"),)
    denied = (bearer("token-of-eve"),)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def known(cls) -> Iterator[None]:
        """The contract of auth providers with a fake Authentik and its tokens."""
        with FakeAuthentik() as cls.authentik:
            cls.authentik.give("token-of-ann", username="ann")
            cls.authentik.give("token-of-bob", username="bob")
            cls.authentik.give("token-of-eve", allowed=False)
            yield

    authentik: FakeAuthentik

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**self.authentik.settings, "authentik_contact_field": "username", "authentik_cache_ttl": 0}

    @property
    def half_configured(self) -> Sequence[Mapping[str, Any]]:
        return [{"authentik_url": self.authentik.url}, {"authentik_app_slug": "jims"}]

    @property
    def outage(self) -> Callable[[], AbstractAsyncContextManager[Any]]:
        @asynccontextmanager
        async def starting_up() -> AsyncIterator[None]:
            self.authentik.starting_up = True
            try:
                yield
            finally:
                self.authentik.starting_up = False

        return starting_up


OF_ANN: Mapping[str, str] = {"authorization": "Bearer token-of-ann"}


class TestAuthentikMetrics(MetricsContract):
    distribution = "jimsapi-authentik"
    prefix = "jims_authentik_"
    headers = OF_ANN
    secrets = ("token-of-ann",)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def known(cls) -> Iterator[None]:
        """A fake Authentik that knows a token."""
        with FakeAuthentik() as cls.authentik:
            cls.authentik.give("token-of-ann", username="ann")
            yield

    authentik: FakeAuthentik

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.authentik.settings
