"""Whether a server and a request belong to this machine alone."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from jimsapi.asgi import Request
from jimsapi.plugins import Settings

PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""Headers that proxies add, and browsers do not."""


def serves_this_machine(settings: Settings) -> bool:
    """Return whether the command listens on a loopback address, and no option says that a proxy is in front of it.

    With another server than the command, nobody knows the address, so the answer is False.
    """
    host = settings.value("host")
    has_proxy = bool(settings.value("root_path")) or settings.value("forwarded_allow_ips") is not None
    return isinstance(host, str) and is_loopback(host) and not has_proxy


def is_local(request: Request) -> bool:
    """Return whether a browser of this machine has sent a request to a name of this machine.

    A proxy on this machine has a loopback address, too. So the names that the request has must be those of loopback,
    there must be no header of a proxy, and the version must not be HTTP/1.0, which proxies use and browsers do not.
    """
    client = request.client
    if client is None or not is_loopback(client[0]) or request.scope.get("http_version") == "1.0":
        return False
    if any(request.headers.get(name) is not None for name in PROXY_HEADERS):
        return False
    hosts = request.headers.getlist("host")
    pages = [page for name in ("origin", "referer") for page in request.headers.getlist(name)]
    return len(hosts) == 1 and all(map(_names_loopback, [f"//{hosts[0]}", *pages]))


def is_loopback(host: str) -> bool:
    """Return whether a host, without brackets and port, is a name or an address of loopback."""
    name = host.lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _names_loopback(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
