"""A caller's rate limits as HTTP headers (draft-ietf-httpapi-ratelimit-headers-11)."""

from collections.abc import Iterable

from jimsapi.asgi.types import RawHeaders
from jimsapi.runs.quota import Allowance, Policy


def rate_limit_headers(policies: Iterable[Policy], allowances: Iterable[Allowance]) -> RawHeaders:
    """Return `RateLimit-Policy` with all limits, and `RateLimit` with what remains of them, if `allowances` has any."""
    remaining = ", ".join(map(_allowance, allowances)).encode()
    fields = [(b"ratelimit-policy", ", ".join(map(_policy, policies)).encode())]
    return [*fields, (b"ratelimit", remaining)] if remaining else fields


def _policy(policy: Policy) -> str:
    window = ';qu="concurrent-requests"' if policy.seconds is None else f";w={policy.seconds}"
    unit = "" if policy.unit is None else f';qu="{policy.unit}"'
    return f'"{policy.name}";q={policy.quota}{window}{unit}'


def _allowance(allowance: Allowance) -> str:
    window = "" if allowance.seconds is None else f";t={allowance.seconds}"
    return f'"{allowance.policy.name}";r={allowance.remaining}{window}'
