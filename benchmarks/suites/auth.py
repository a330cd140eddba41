"""What it costs to know who calls: chats per second by way of auth, beside a server that admits everybody.

An Authentik and an OpenID Connect issuer, those of the plugins' own tests, stand beside the servers; Authentik is asked
once a token, so that what is measured is the cached decision. Signatures are checked anew where there are more tokens
than the plugin remembers.
"""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import OURS_WITH_PLUGINS, of_tests
from benchmarks.load import CHAT, measure
from benchmarks.plan import Plan
from benchmarks.serving import KEY, jimsapi
from benchmarks.sheet import Sheet

CASE, PUBLIC = "chat, memory store", "nobody is asked"
CONNECTIONS = 32
MANY = 5_000
"""Tokens in turn: more than are remembered as verified."""


@dataclass(frozen=True)
class Way:
    """A way in: the options of a server that has it, and the tokens that its callers send."""

    options: list[str]
    tokens: list[str]


def run(plan: Plan) -> Sheet:
    """Measure."""
    sheet = Sheet("auth", f"chats by way of auth, {CONNECTIONS} connections", beside={CASE: PUBLIC})
    authentik = of_tests("jimsapi-authentik", "fake_authentik").FakeAuthentik(tls=False)
    issuer = of_tests("jimsapi-oidc", "fake_issuer").FakeIssuer(tls=False)
    with authentik, issuer, tempfile.TemporaryDirectory() as folder:
        authentik.give("a-token-of-authentik")
        # Those who send them speak for every contact, as the others here do.
        oidc = issuer.flags(oidc_contact_claim="none")
        ways = {
            PUBLIC: Way([], ["none"]),
            "a key": Way(["--api-key", KEY], [KEY]),
            "Authentik, cached": Way(authentik.flags, ["a-token-of-authentik"]),
            "OIDC, one token": Way(oidc, [issuer.token()]),
            "OIDC, each token anew": Way(oidc, [issuer.token(jti=str(number)) for number in range(MANY)]),
        }
        files = {name: Path(folder) / f"{number}.txt" for number, name in enumerate(ways)}
        for name, way in ways.items():
            files[name].write_text("\n".join(way.tokens) + "\n")
        for number in range(plan.either(7, 1)):
            one_round(plan, sheet, ways, files)
            print(f"auth: round {number + 1}", flush=True)
    return sheet


def one_round(plan: Plan, sheet: Sheet, ways: dict[str, Way], files: dict[str, Path]) -> None:
    """Start a server of each way afresh, and load them in random order."""
    with ExitStack() as standing:
        servers = {
            name: standing.enter_context(
                jimsapi("memory:", auth=ways[name].options, core=plan.server_core, python=OURS_WITH_PLUGINS)
            )
            for name in plan.shuffled(ways)
        }
        for name in plan.shuffled(ways):
            found = measure(
                servers[name],
                CHAT,
                seconds=1,
                connections=CONNECTIONS,
                core=plan.load_core,
                tokens=files[name],
            )
            sheet.add(CASE, name, found)
