"""Which callers are admitted with every combination of the built-in key and the first-party auth plugins.

The test holds each cell against a server that is configured so; `make docs` writes the table into the documentation.
"""

from itertools import product

CONFIGURED = ("key", "url", "slug", "oidc")
"""`--api-key`; `--authentik-url`; `--authentik-app-slug`; `--oidc-issuer` and `--oidc-audience`."""

CALLERS = ("nothing", "key", "user", "jwt", "denied", "wrong", "empty", "scheme")

TABLE = """
key url slug oidc | nothing key user jwt denied wrong empty scheme
 -   -   -    -   |   200   200 200  200  200    200   200   200
 x   -   -    -   |   401   200 401  401  401    401   401   401
 -   x   -    -   |   401   401 401  401  401    401   401   401
 -   -   x    -   |   401   401 401  401  401    401   401   401
 x   x   -    -   |   401   200 401  401  401    401   401   401
 x   -   x    -   |   401   200 401  401  401    401   401   401
 -   x   x    -   |   401   401 200  401  403    401   401   401
 x   x   x    -   |   401   200 200  401  403    401   401   401
 -   -   -    x   |   401   401 401  200  401    401   401   401
 x   -   -    x   |   401   200 401  200  401    401   401   401
 -   x   -    x   |   401   401 401  200  401    401   401   401
 -   -   x    x   |   401   401 401  200  401    401   401   401
 x   x   -    x   |   401   200 401  200  401    401   401   401
 x   -   x    x   |   401   200 401  200  401    401   401   401
 -   x   x    x   |   401   401 200  200  403    401   401   401
 x   x   x    x   |   401   200 200  200  403    401   401   401
"""

Configuration = tuple[bool, ...]


def expected() -> dict[Configuration, dict[str, int]]:
    """The status of every kind of caller, by what is configured."""
    table = {}
    for line in TABLE.strip().splitlines()[1:]:
        marks, statuses = line.split("|")
        configuration = tuple(mark == "x" for mark in marks.split())
        table[configuration] = dict(zip(CALLERS, map(int, statuses.split()), strict=True))
    assert set(table) == set(product((False, True), repeat=len(CONFIGURED))), "a combination is missing"
    return table


def markdown() -> str:
    """The table as the documentation shows it."""
    head = [
        "`--api-key`", "`--authentik-url`", "`--authentik-app-slug`", "`--oidc-issuer`, `--oidc-audience`",
        "no token", "the key", "a user of the application", "a good JWT", "a user without access", "any other token",
        "`Bearer` and nothing", "another scheme",
    ]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    for configuration, statuses in expected().items():
        rows.append(["set" if one else "" for one in configuration] + [str(status) for status in statuses.values()])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
