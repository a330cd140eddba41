"""Servers that give their clients another URL than the one that clients use."""

from urllib.parse import urlsplit

from jimsapi.cli.client_setup.address import origin, without_credentials

MAX_SHOWN = 200
"""Characters of a text of the server that are shown."""


def misnaming(what: str, found: object, expected: str) -> str:
    """Return what is wrong with a URL that the server gives to clients, and what to do.

    `what` names the place of the URL, `found` is its value there, and `expected` is the URL that clients use.
    """
    shown = without_credentials(found)[:MAX_SHOWN]
    return f"{what} has the URL {shown!r} in place of {expected}: {_advice(str(found), expected)}"


def _advice(found: str, expected: str) -> str:
    theirs, ours = origin(found), origin(expected)
    if theirs is None or ours is None:
        return "correct the option that gives the server its public URL"
    if theirs[1] != ours[1]:
        return (
            "if the first is its public URL, give that to this command; if not, let the proxy pass the header Host, "
            "and start the server with --forwarded-allow-ips and the address of the proxy"
        )
    if theirs != ours:
        return (
            "the server does not trust its proxy: start it with --forwarded-allow-ips and the address of the proxy, "
            "and let the proxy send X-Forwarded-Proto and the header Host"
        )
    if urlsplit(found).path != urlsplit(expected).path:
        return "start the server with --root-path and the path below which the proxy shows it"
    return "correct the option that gives the server its public URL"
