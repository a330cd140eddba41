"""The contract of an `AuthProvider`, as tests. A provider that passes them is safe to protect an API."""

import asyncio
import re
import string
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import httpx

from jimsapi.api.app import Api
from jimsapi.asgi.connection import Connection, Request
from jimsapi.asgi.response import JSONResponse
from jimsapi.asgi.testing import TestClient
from jimsapi.builtin import builtin_plugins
from jimsapi.plugins.compose import declared_options
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.manager import PluginManager
from jimsapi.plugins.options import specs
from jimsapi.plugins.protocols import AccessDenied, AuthUnavailable, InvalidCredentials
from jimsapi.plugins.secrets import Secret
from jimsapi.plugins.versions import canonical
from jimsapi.runs.inbound import check_contact_id
from jimsapi.testing.contract import (
    CapturedOutput,
    DoesNotApply,
    NamedContract,
    cancel_in_mid_call,
    listed,
    needs,
    nothing_left,
    resolved,
    within,
)
from jimsapi.testing.watched import WatchedConnection, WatchedSecret
from jimsapi.threads.identity import Identity

Credential = Mapping[str, str | bytes]
"""The headers with a caller's credentials, and no others. Text is sent as UTF-8, bytes unchanged."""

PATH = "/contract/who"
HUGE = 1_000_000

# RFC 9110, sections 5.6.2, 5.6.4, 11.2 and 11.3.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TOKEN68 = r"[A-Za-z0-9\-._~+/]+=*"
_QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_PARAMETER = rf"{_TOKEN}[ \t]*=[ \t]*(?:{_TOKEN}|{_QUOTED})"
_CHALLENGE = re.compile(rf"{_TOKEN}(?: +(?:{_TOKEN68}|{_PARAMETER}(?:[ \t]*,[ \t]*{_PARAMETER})*))?")

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, section 3.3

_ALIKE = (string.digits, "abcdef", "ghijklmnopqrstuvwxyz", "ABCDEF", "GHIJKLMNOPQRSTUVWXYZ")
_NEXT = str.maketrans("".join(_ALIKE), "".join(alike[1:] + alike[0] for alike in _ALIKE))
"""Each letter and digit, and another one that stands in the same places, also in hexadecimal digits."""


class AuthProviderContract(NamedContract):
    """Derive a class from this one in a test module, and declare examples of the provider's credentials:

        class TestTicket(AuthProviderContract):
            distribution = "jimsapi-ticket"
            settings = {"ticket_secret": "sesame"}
            secrets = ("sesame",)
            good = {"ticket": {"x-ticket": "sesame"}}
            foreign = ({"authorization": "Bearer sesame"},)
            malformed = DoesNotApply("every text may be a ticket")
            wrong = ({"x-ticket": "simsim"},)
            expired = DoesNotApply("a ticket has no date")
            denied = DoesNotApply("every holder of a ticket has access")
            half_configured = DoesNotApply("there is one option")
            outage = DoesNotApply("it calls no service")

    pytest then runs every case against the installed plugin. If the provider cannot have examples of a kind, declare
    `DoesNotApply` with the reason: the cases that need them do not run. An attribute may also be a property, for
    credentials that must be new for every case. The cases need pytest and anyio, whose pytest plugin runs them.

    If the provider accepts each credential only once, because it has a nonce, declare `one_time = True`, and make
    `good` (and `denied`) a property that returns new credentials whenever it is read. If each of them has a secret part
    of its own, such as a signature, also override `secrets_of`.

        one_time = True

        @property
        def good(self):
            return {"ann": {"authorization": signed(ANN, "ann", nonce=secrets.token_hex())}}

        def secrets_of(self, credential):
            return [credential["authorization"].rpartition(":")[2]]

    If a wrapper of the plugin passes something to the provider in the ASGI scope, such as a body that it has read, also
    declare `scope_fields`:

        scope_fields = {"jimsapi_ticket.body": b""}

    The contract can check only in part that secrets are compared in constant time. One case passes headers, and your
    `Secret` options, as text that records comparisons by `==`, `in` or `startswith`, also of parts made by slicing,
    `partition`, `split`, `strip` or `encode`. It does not record comparisons of text from a regular expression or a
    decoder. Compare secrets with `Secret.matches` or `hmac.compare_digest`.
    """

    hook = "jimsapi_auth_provider"

    one_time: bool = False
    """Whether the provider accepts each credential for one request only."""

    path = PATH
    """The path that the cases request by GET. Credentials that are valid for one request only must be for this one."""

    scope_fields: Mapping[str, Any] = MappingProxyType({})
    """What a wrapper of the plugin adds to the ASGI scope of a request without a body. Many cases call no wrapper."""

    # Declarations of a subclass

    @cached_property
    def good(self) -> Mapping[str, Credential]:
        """Valid credentials, by the subject of the identity that they give. Declare two or more if possible.

        If `one_time` is set, they must be new whenever this is read.
        """
        raise self.undeclared("good", 'valid headers by subject: {"ticket": {"x-ticket": "sesame"}}')

    @cached_property
    def secrets(self) -> Sequence[str]:
        """The secret parts of `settings` and `good`, which must not be shown. Each of `good` contains one."""
        raise self.undeclared("secrets", "the secret parts of `settings` and `good`")

    def secrets_of(self, credential: Credential) -> Sequence[str]:
        """Return the secret parts of one of `good`. The default is those of `secrets` that it contains."""
        sent = [value if isinstance(value, bytes) else value.encode() for value in credential.values()]
        return [secret for secret in self.secrets if any(secret.encode() in value for value in sent)]

    @cached_property
    def foreign(self) -> Sequence[Credential]:
        """Credentials of another kind, which the provider leaves to other providers."""
        raise self.undeclared("foreign", "credentials of another kind")

    @cached_property
    def malformed(self) -> Sequence[Credential] | DoesNotApply:
        """Credentials of this kind that are not well-formed."""
        raise self.undeclared("malformed", "credentials of its kind that are not well-formed, or DoesNotApply(why)")

    @cached_property
    def wrong(self) -> Sequence[Credential]:
        """Well-formed credentials that are not valid."""
        raise self.undeclared("wrong", "credentials of its kind that are not valid")

    @cached_property
    def forged(self) -> Sequence[Credential] | DoesNotApply:
        """Credentials in the right form that somebody without the secret has made.

        The default is each of `good` with other letters and digits in its secret parts, in the same places. Declare
        them if that is another form. For example, sign the claims of a token with another key.
        """
        return [with_forged_secrets(credential, self.secrets_of(credential)) for credential in self.good.values()]

    @cached_property
    def expired(self) -> Sequence[Credential] | DoesNotApply:
        """Credentials that were valid, and have expired."""
        raise self.undeclared("expired", "credentials that were good once, or DoesNotApply(why)")

    @cached_property
    def denied(self) -> Sequence[Credential] | DoesNotApply:
        """Valid credentials of a holder who has no access."""
        raise self.undeclared("denied", "valid credentials of a holder without access, or DoesNotApply(why)")

    @cached_property
    def half_configured(self) -> Sequence[Mapping[str, Any]] | DoesNotApply:
        """Options without one that is required."""
        raise self.undeclared("half_configured", "options of which one is missing, or DoesNotApply(why)")

    @cached_property
    def outage(self) -> Callable[[], AbstractAsyncContextManager[Any]] | DoesNotApply:
        """Return an async context manager in which the service that the provider calls is unavailable."""
        raise self.undeclared("outage", "an async context manager that stops its service, or DoesNotApply(why)")

    # Configuration

    async def test_the_host_knows_it_by_its_distribution(self) -> None:
        api = self.api()
        async with api.lifespan():
            assert api.composition is not None
            providers = [one for one in api.composition.providers if self.is_mine(one.entry)]
            assert len(providers) == 1
            name = providers[0].name
        only_this = {**self.settings, "auth_order": name}
        async with self.api(only_this).lifespan():
            pass

    @needs("half_configured")
    async def test_half_a_configuration_admits_nobody(self) -> None:
        for given in self.examples("half_configured"):
            try:
                async with self.client(given) as client:
                    statuses = [(await send(client, one)).status_code for one in ({}, *self.good.values())]
            except (RuntimeError, StartError):
                continue  # a server that does not start admits no caller either
            assert 200 not in statuses, f"with {sorted(given)} alone, a caller is admitted"

    # Decisions

    async def test_good_credentials_are_admitted_with_their_subject(self) -> None:
        async with self.opened() as provider:
            for subject, credential in self.examples("good").items():
                await self.admit(provider, subject, credential)

    async def test_an_identity_is_well_formed(self) -> None:
        async with self.opened() as provider:
            for credential in self.good.values():
                identity = await self.decide(provider, credential)
                assert isinstance(identity, Identity)
                assert isinstance(identity.subject, str)
                assert identity.subject.strip(), "its subject is empty"
                if identity.contact_id is not None:
                    assert isinstance(identity.contact_id, str)
                    check_contact_id(identity.contact_id)
                if identity.scopes is not None:
                    assert isinstance(identity.scopes, Collection)
                    assert all(isinstance(scope, str) and scope for scope in identity.scopes)

    async def test_a_request_without_credentials_is_left_to_other_providers(self) -> None:
        async with self.opened() as provider:
            decision = await self.decide(provider, {})
            assert decision is None, f"a request without credentials resulted in {described(decision)}"

    async def test_credentials_of_another_kind_are_left_to_other_providers(self) -> None:
        async with self.opened() as provider:
            for number, credential in enumerate(self.examples("foreign")):
                decision = await self.decide(provider, credential)
                assert decision is None, f"foreign[{number}] resulted in {described(decision)}"

    @needs("malformed")
    async def test_malformed_credentials_are_invalid(self) -> None:
        await self.expect("malformed", InvalidCredentials)

    async def test_wrong_credentials_are_invalid(self) -> None:
        await self.expect("wrong", InvalidCredentials)

    async def test_almost_right_credentials_are_not_admitted(self) -> None:
        await self.never_admit(self.near_misses)

    @needs("forged")
    async def test_forged_credentials_are_not_admitted(self) -> None:
        await self.never_admit(lambda: self.examples("forged"))

    @needs("expired")
    async def test_expired_credentials_are_invalid(self) -> None:
        await self.expect("expired", InvalidCredentials)

    @needs("denied")
    async def test_holders_without_access_are_denied(self) -> None:
        await self.expect("denied", AccessDenied)

    async def test_empty_credentials_are_not_admitted(self) -> None:
        await self.never_admit(partial(self.changed, _emptied))

    async def test_huge_credentials_are_not_admitted(self) -> None:
        await self.never_admit(partial(self.changed, _enlarged))

    async def test_non_ascii_credentials_are_not_admitted(self) -> None:
        await self.never_admit(partial(self.changed, _beyond_ascii))

    async def test_two_headers_that_differ_are_not_admitted(self) -> None:
        async with self.client() as client:
            for subject, credential in self.good.items():
                for name, value in raw(credential):
                    for pair in ([value, value + b"x"], [value + b"x", value]):
                        others = [header for header in raw(credential) if header[0] != name]
                        answer = await client.get(PATH, headers=[*others, *((name, one) for one in pair)])
                        assert answer.status_code in (400, 401, 403), (
                            f"{subject} was admitted with two headers {name.decode()} that differ: reject a header "
                            "that comes twice, because a proxy may use the other one"
                        )

    # Credentials that are valid once

    @needs("one_time")
    def test_good_credentials_are_new_whenever_they_are_read(self) -> None:
        before, now = self.good, self.good
        assert not [one for one in before.values() if one in now.values()], (
            "with one_time = True, `good` must be a property that makes new credentials whenever it is read"
        )

    @needs("one_time")
    async def test_good_credentials_are_admitted_once(self) -> None:
        async with self.opened() as provider:
            for subject, credential in self.examples("good").items():
                await self.admit(provider, subject, credential)
                again = await self.decide(provider, credential)
                assert isinstance(again, InvalidCredentials), f"the second time it resulted in {described(again)}"

    @needs("one_time")
    async def test_of_concurrent_calls_with_the_same_credentials_one_is_admitted(self) -> None:
        async with self.opened() as provider:
            for credential in self.good.values():
                decisions = await asyncio.gather(*(self.decide(provider, credential) for _ in range(20)))
                admitted = [one for one in decisions if isinstance(one, Identity)]
                assert len(admitted) == 1, f"{len(admitted)} of 20 concurrent calls were admitted"

    # Concurrent and cancelled calls

    async def test_concurrent_calls_get_their_own_answers(self) -> None:
        async with self.opened() as provider:
            calls: list[tuple[str | None, Credential]] = []
            for _ in range(20):
                calls += [*self.good.items(), *((None, one) for one in self.wrong)]
            decisions = await asyncio.gather(*(self.decide(provider, credential) for _, credential in calls))
            for (subject, _), decision in zip(calls, decisions, strict=True):
                if subject is None:
                    assert isinstance(decision, InvalidCredentials), (
                        f"wrong credentials resulted in {described(decision)}"
                    )
                else:
                    assert isinstance(decision, Identity), f"{subject} got {described(decision)}"
                    assert decision.subject == subject, f"{subject} got the identity of another caller"

    async def test_a_call_that_is_cancelled_ends_and_the_next_one_works(self) -> None:
        async with nothing_left(), self.opened() as provider:
            await cancel_in_mid_call(lambda: self.decide(provider, next(iter(self.good.values()))))
            await self.use(provider)

    # Outages

    @needs("outage")
    async def test_in_an_outage_it_is_unavailable_and_admits_nobody(self) -> None:
        async with self.opened() as provider, self._outage():
            for credential in self.good.values():
                decision = await self.decide(provider, credential)
                assert isinstance(decision, AuthUnavailable), f"good credentials resulted in {described(decision)}"
            for credential in self.wrong:
                decision = await self.decide(provider, credential)
                assert isinstance(decision, AuthUnavailable | InvalidCredentials), (
                    f"it resulted in {described(decision)}"
                )

    @needs("outage")
    async def test_in_an_outage_the_server_answers_503_with_retry_after(self) -> None:
        async with self.client() as client, self._outage():
            for credential in self.good.values():
                answer = await send(client, credential)
                assert answer.status_code == 503
                assert answer.headers["retry-after"].isdigit()

    def _outage(self) -> AbstractAsyncContextManager[Any]:
        outage = self.outage
        assert not isinstance(outage, DoesNotApply)
        return outage()

    # Secrets

    def test_each_good_credential_contains_a_secret(self) -> None:
        for subject, credential in self.examples("good").items():
            assert list(_with_another_secret(credential, self.secrets_of(credential))), (
                f"the credentials of {subject} contain none of `secrets`: declare their secret part"
            )
        assert all(len(secret) >= 4 for secret in self.secrets), "shorter secrets are found in every text"

    async def test_secrets_are_compared_in_constant_time(self) -> None:
        seen = list[str]()
        async with self.opened(self.watched_settings(seen)) as provider:
            seen.clear()  # callers cannot time the comparisons of the start
            for right in self.good.values():
                secrets = self.all_secrets([right])
                for credential in _with_another_secret(right, self.secrets_of(right)):
                    await self.decide(provider, credential, WatchedConnection(self.scope(credential), secrets, seen))
        assert not seen, f"a secret was compared by {', '.join(seen)}: use Secret.matches or hmac.compare_digest"

    def watched_settings(self, seen: list[str]) -> dict[str, Any]:
        """Return the settings, with secrets that record comparisons of their text."""

        def watched(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return [watched(one) for one in value]
            return WatchedSecret(value.reveal() if isinstance(value, Secret) else value, self.secrets, seen)

        secret_keys = {spec.key for spec in self.own_specs() if spec.type is Secret}
        return {key: watched(value) if key in secret_keys else value for key, value in self.settings.items()}

    async def test_no_secret_is_logged_raised_or_shown(self, shown: CapturedOutput) -> None:
        secrets = list[str]()

        def to_send() -> list[Credential]:
            good = list(self.good.values())
            secrets.extend(self.all_secrets(good))
            invalid = [*self.wrong, *listed(self.malformed), *listed(self.expired)]
            changed = [*self.near_misses(good), *self.changed(_beyond_ascii, good)]
            return [*good, *invalid, *listed(self.denied), *changed]

        async with self.opened() as provider:
            shown.add(provider, getattr(provider, "challenge", ""))
            for credential in to_send():
                shown.add(await self.decide(provider, credential))
        async with self.client() as client:
            shown.add(*[(await send(client, credential)).text for credential in to_send()])
        shown.add(*self.options())
        shown.assert_contains_none_of([*secrets, *(_with_other_end(secret) for secret in secrets)])

    def all_secrets(self, good: Sequence[Credential]) -> list[str]:
        """Return `secrets`, and the secret parts of these credentials."""
        return list(dict.fromkeys([*self.secrets, *(secret for one in good for secret in self.secrets_of(one))]))

    def own_specs(self) -> Iterator[Any]:
        """Return the options that the plugin's distribution declares."""
        for owned in declared_options(PluginManager(builtin_plugins())):
            if canonical(owned.distribution) == canonical(self.distribution):
                yield from specs(owned.options)

    def options(self) -> Iterator[object]:
        """Return the plugin's resolved options, which logs may show. A secret has the type `Secret`."""
        plugins = PluginManager(builtin_plugins())
        settings = resolved(plugins, self.settings)
        for owned in declared_options(plugins):
            if canonical(owned.distribution) == canonical(self.distribution):
                yield settings.get(owned.options)

    # Behind a server

    async def test_the_server_admits_its_callers_and_names_the_provider(self) -> None:
        api = self.api()
        async with self.client(api=api) as client:
            assert api.composition is not None
            [built] = [one for one in api.composition.providers if self.is_mine(one.entry)]
            for subject, credential in self.good.items():
                answer = await send(client, credential)
                assert answer.status_code == 200, f"{subject} got {answer.status_code}"
                expected = {"subject": subject, "provider": built.name, "distribution": built.entry.distribution}
                assert answer.json() == expected

    async def test_the_server_answers_401_to_others_with_a_well_formed_challenge(self) -> None:
        async with self.opened() as provider:
            challenge = getattr(provider, "challenge", None)
            has_servers = bool(getattr(provider, "authorization_servers", ()))
        if challenge is not None:
            assert _CHALLENGE.fullmatch(challenge), f"{challenge!r} is not a challenge (RFC 9110, 11.3)"
        async with self.client() as client:
            for credential in ({}, *self.wrong, *listed(self.malformed), *listed(self.expired)):
                answer = await send(client, credential)
                assert answer.status_code == 401
                offered = answer.headers.get("www-authenticate", "")
                if has_servers:
                    assert offered.startswith('Bearer resource_metadata="'), f"{offered!r} names no metadata first"
                    assert (challenge or "").partition(" ")[2] in offered
                else:
                    assert offered.startswith(challenge or "")

    async def test_the_server_names_its_authorization_servers_and_the_scopes_that_clients_request(self) -> None:
        async with self.opened() as provider:
            servers = tuple(getattr(provider, "authorization_servers", ()))
            scopes = tuple(getattr(provider, "oauth_scopes", ()))
        for issuer in servers:
            assert _is_issuer(issuer), f"{issuer!r} is not an issuer: a URL without query and fragment (RFC 8414, 2)"
        for scope in scopes:
            assert _SCOPE.fullmatch(scope), f"{scope!r} is not the name of a scope (RFC 6749, 3.3)"
        if not servers:
            return
        async with self.client() as client:
            url = (await send(client, {})).headers["www-authenticate"].split('"')[1]
            metadata = (await client.get(url)).json()
        assert set(servers) <= set(metadata["authorization_servers"])
        assert set(scopes) <= set(metadata.get("scopes_supported", ()))

    @needs("denied")
    async def test_the_server_answers_403_to_denied_callers(self) -> None:
        async with self.client() as client:
            for credential in self.examples("denied"):
                assert (await send(client, credential)).status_code == 403

    # Helpers of the cases

    async def use(self, provider: Any) -> None:
        await self.admit(provider, *next(iter(self.examples("good").items())))

    async def admit(self, provider: Any, subject: str, credential: Credential) -> None:
        """Fail unless these valid credentials are admitted with their subject."""
        identity = await self.decide(provider, credential)
        hint = "; if it accepts each credential only once, declare one_time = True" if not self.one_time else ""
        assert isinstance(identity, Identity), f"the credentials of {subject} resulted in {described(identity)}{hint}"
        assert identity.subject == subject

    async def expect(self, name: str, refusal: type[Exception]) -> None:
        """Fail unless the provider refuses each example of `name` with `refusal`."""
        for number, decision, _ in await self.answers(lambda: self.examples(name)):
            assert isinstance(decision, refusal), f"{name}[{number}] resulted in {described(decision)}"

    def scope(self, credential: Credential) -> dict[str, Any]:
        """Return the ASGI scope of a request with these credentials, as the provider gets it."""
        return {**scope(credential), **self.scope_fields}

    async def decide(self, provider: Any, credential: Credential, caller: Connection | None = None) -> Any:
        """Return the provider's decision: an identity, None, or the exception that it raised."""
        try:
            return await within(provider.authenticate(caller or Connection(self.scope(credential))))
        except Exception as error:
            return error

    async def never_admit(self, make: Callable[[], Sequence[Credential]]) -> None:
        """Fail unless the provider leaves each to other providers, or refuses it with one of the two regular errors."""
        for _, decision, credential in await self.answers(make):
            assert decision is None or isinstance(decision, InvalidCredentials | AccessDenied), (
                f"{shortened(credential)} resulted in {described(decision)}"
            )

    async def answers(self, make: Callable[[], Sequence[Credential]]) -> list[tuple[int, Any, Credential]]:
        """Return a provider's decisions for the credentials that `make` returns, with their numbers.

        A new provider decides first. Then a provider decides after it has admitted each of the valid credentials, since
        a provider with a cache may confuse them.
        """

        async def decisions(provider: Any) -> list[tuple[int, Any, Credential]]:
            return [(number, await self.decide(provider, one), one) for number, one in enumerate(make())]

        async with self.opened() as provider:
            made = await decisions(provider)
        async with self.opened() as provider:
            for subject, good in self.examples("good").items():
                await self.admit(provider, subject, good)
                made += await decisions(provider)
        return made

    def changed(
        self, change: Callable[[bytes], list[bytes]], good: Sequence[Credential] | None = None
    ) -> list[Credential]:
        """Return the valid credentials, with one header at a time changed in each of these ways."""
        return [
            {**credential, name: value}
            for credential in (self.examples("good").values() if good is None else good)
            for name, right in credential.items()
            for value in change(right if isinstance(right, bytes) else right.encode())
        ]

    def near_misses(self, good: Sequence[Credential] | None = None) -> list[Credential]:
        """Return the valid credentials, with the last character of one secret at a time changed."""
        return [
            changed
            for credential in (self.good.values() if good is None else good)
            for changed in _with_another_secret(credential, self.secrets_of(credential))
        ]

    def client(self, given: Mapping[str, Any] | None = None, *, api: Api | None = None) -> TestClient:
        """Return a client of a server with the provider, and with a route that answers with the admitted identity."""
        served = api or self.api(given)

        @served.get(PATH)
        async def identity(request: Request) -> JSONResponse:
            admission = request.admission
            return JSONResponse(
                {
                    "subject": admission.identity.subject,
                    "provider": admission.provider,
                    "distribution": admission.distribution,
                }
            )

        return TestClient(served)


def raw(credential: Credential) -> list[tuple[bytes, bytes]]:
    """Return the headers as ASGI servers pass them."""
    return [
        (name.lower().encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in credential.items()
    ]


def with_forged_secrets(credential: Credential, secrets: Sequence[str]) -> Credential:
    """Return the credentials with other letters and digits in the secret parts, in the same places."""
    return {name: _with_other_letters(value, secrets) for name, value in credential.items()}


def scope(credential: Credential) -> dict[str, Any]:
    """Return the ASGI scope of a request with these credentials."""
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 50000),
        "path": PATH,
        "raw_path": PATH.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), *raw(credential)],
    }


async def send(client: TestClient, credential: Credential) -> httpx.Response:
    """Return the server's response to a request with these credentials."""
    return await client.get(PATH, headers=raw(credential))


def _is_issuer(text: str) -> bool:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("https", "http") and bool(url.host) and not url.query and not url.fragment


def described(decision: object) -> str:
    """Describe a provider's decision for a failure message."""
    if decision is None:
        return "None"
    return "an identity" if isinstance(decision, Identity) else type(decision).__name__


def shortened(credential: Credential) -> str:
    """Describe headers for a failure message."""
    return str({name: value if len(value) < 100 else value[:100] for name, value in raw(credential)})


def _emptied(value: bytes) -> list[bytes]:
    scheme, space, _ = value.partition(b" ")
    return [b"", b" ", *([scheme, scheme + b" ", scheme + b"    "] if space else [])]


def _enlarged(value: bytes) -> list[bytes]:
    return [value + b"A" * HUGE, value + b"=" * HUGE, value + b"," + value * (HUGE // len(value)), b"A" * HUGE + value]


def _beyond_ascii(value: bytes) -> list[bytes]:
    """Return variants of a header's value with non-ASCII bytes (RFC 9110, 5.5)."""
    scheme, space, token = value.rpartition(b" ")
    start = scheme + space
    # `base64` ignores other characters. `str.isdigit` accepts a superscript, and `int` does not.
    added = ["é".encode(), "é".encode("latin-1"), b"\xff\xfe", "²".encode("latin-1"), b"\xa0", "漢🦊".encode()]
    changed = [
        *(value + one for one in added),
        *(start + one + token for one in added),
        *(start + one for one in added),
    ]
    superscript = re.sub(rb"[0-9]", "²".encode("latin-1"), value, count=1)
    return changed if superscript == value else [*changed, superscript]


def _with_other_letters(value: str | bytes, secrets: Sequence[str]) -> bytes:
    sent = value if isinstance(value, bytes) else value.encode()
    for secret in secrets:
        sent = sent.replace(secret.encode(), secret.translate(_NEXT).encode())
    return sent


def _with_other_end(secret: str) -> str:
    """Return the secret with another last character, such that it also decodes differently as base64.

    The low bits of the last character may be unused in base64 (RFC 4648, 3.5), but not the highest two.
    """
    end = len(secret.rstrip("=")) or len(secret)
    other = "A" if secret[end - 1] in "wxyz0123456789-_+/" else "0"
    return secret[: end - 1] + other + secret[end:]


def _with_another_secret(credential: Credential, secrets: Sequence[str]) -> Iterator[Credential]:
    for name, value in credential.items():
        sent = value if isinstance(value, bytes) else value.encode()
        for secret in secrets:
            if secret.encode() in sent:
                yield {**credential, name: sent.replace(secret.encode(), _with_other_end(secret).encode())}
