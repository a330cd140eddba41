"""What it costs to know who calls: chats per second by way of auth, beside a server that admits everybody.

An Authentik and an OpenID Connect issuer, those of the plugins' own tests, stand beside the servers; Authentik is asked
once a token, so that what is measured is the cached decision. Signatures are checked anew where there are more tokens
than the plugin remembers. Every round starts each server afresh, in another order. Needs both plugins installed.
"""

import argparse
import importlib.util
import tempfile
from pathlib import Path
from statistics import median
from types import ModuleType

import msgspec

from benchmarks.floor import rotated, spread, two_cores
from benchmarks.load import measure, require_wrk
from benchmarks.serving import KEY, ROOT, jimsapi

PUBLIC = "nobody is asked"
MANY = 5_000
"""Tokens in turn: more than are remembered as verified."""


class Way(msgspec.Struct, frozen=True):
    """A way in: the options of a server that has it, and the tokens that its callers send."""

    options: list[str]
    tokens: list[str]


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.auth", description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=3, help="how long each load lasts")
    options.add_argument("--connections", type=int, default=32)
    given = options.parse_args()
    require_wrk()
    server_core, load_core = two_cores()
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
        rounds = []
        for number in range(given.rounds):
            rates = {}
            for name in rotated(list(ways), number):
                with jimsapi("memory:", auth=ways[name].options, core=server_core) as server:
                    rates[name] = measure(
                        server,
                        "chat",
                        seconds=given.seconds,
                        connections=given.connections,
                        core=load_core,
                        tokens=files[name],
                    ).by_processor
            rounds.append(rates)
            print(f"round {number + 1}: " + ", ".join(f"{name} {rates[name]:,.0f}/s" for name in ways), flush=True)
        print("\nshare of a chat's processor time that goes into knowing the caller (median, lowest and highest)")
        for name in ways:
            if name != PUBLIC:
                shares = [1 - one[name] / one[PUBLIC] for one in rounds]
                cost = median([1e6 / one[name] - 1e6 / one[PUBLIC] for one in rounds])
                print(f"{name:24}{spread(shares)}, {cost:.1f} us of {median([1e6 / one[name] for one in rounds]):.0f}")


def of_tests(plugin: str, name: str) -> ModuleType:
    """A module of a plugin's tests, which are no package."""
    path = ROOT / "plugins" / plugin / "tests" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
