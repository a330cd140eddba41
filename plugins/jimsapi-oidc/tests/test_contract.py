"""The contract that every auth provider keeps."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from fake_issuer import AUDIENCE, FakeIssuer, SigningKey

from jimsapi.testing import DoesNotApply, MetricsContract
from jimsapi.testing.auth import AuthProviderContract, Credential


def bearer(token: str) -> Credential:
    return {"authorization": f"Bearer {token}"}


class TestOidc(AuthProviderContract):
    distribution = "jimsapi-oidc"
    outage = DoesNotApply("with the keys that it has it goes on; test_keys.py shows what it does without any")

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def trusted(cls) -> Iterator[None]:
        """The issuer, and the tokens of two people."""
        with FakeIssuer() as cls.issuer:
            cls.tokens = {subject: cls.issuer.token(sub=subject) for subject in ("ann", "bob")}
            yield

    issuer: FakeIssuer
    tokens: Mapping[str, str]

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.issuer.settings(oidc_scopes="chat")

    @property
    def good(self) -> Mapping[str, Credential]:
        return {subject: bearer(token) for subject, token in self.tokens.items()}

    @property
    def secrets(self) -> Sequence[str]:
        return [token.rpartition(".")[2] for token in self.tokens.values()]

    @property
    def foreign(self) -> Sequence[Credential]:
        basic = base64.b64encode(b"ann:secret").decode()
        opaque = ("no-token-of-anybody", self.issuer.token(iss="https://other.test"))
        return [{"authorization": f"Basic {basic}"}, {"x-ticket": "x"}, *(bearer(token) for token in opaque)]

    @property
    def malformed(self) -> Sequence[Credential]:
        return [bearer("e30.e30x.x"), bearer(self.issuer.sign(b"{}", b"[]"))]

    @property
    def wrong(self) -> Sequence[Credential]:
        tokens = (
            self.issuer.token(key=SigningKey("RS256", self.issuer.keys[0].kid)),
            self.issuer.token(aud="another"),
            self.issuer.token(header={"kid": "unknown"}),
        )
        return [bearer(token) for token in tokens]

    @property
    def expired(self) -> Sequence[Credential]:
        return [bearer(self.issuer.token(exp=1))]

    @property
    def denied(self) -> Sequence[Credential]:
        return [bearer(self.issuer.token(scope="other")), bearer(self.issuer.token(sub=""))]

    @property
    def half_configured(self) -> Sequence[Mapping[str, Any]]:
        return [{"oidc_issuer": self.issuer.url}, {"oidc_audience": AUDIENCE}, {"oidc_contact_claim": "none"}]


class TestOidcMetrics(MetricsContract):
    distribution = "jimsapi-oidc"
    prefix = "jims_oidc_"

    @pytest.fixture(autouse=True)
    def trusted(self, issuer: FakeIssuer) -> None:
        self.issuer = issuer
        self.token = issuer.token(sub="ann")

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.issuer.settings(oidc_contact_claim="none")  # so that the caller may write for every contact

    @property
    def headers(self) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    @property
    def secrets(self) -> Sequence[str]:
        return [self.token.rpartition(".")[2]]
