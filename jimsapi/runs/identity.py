"""The identity of a caller, its scopes, and the auth provider that admitted it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

CHAT = "chat"
"""Scope: answer a message in any protocol, and see one's own runs."""
THREADS = "threads"
"""Scope: list, read and delete threads, events and contacts."""


NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, as an auth provider identified it.

    `subject` is the provider's name for the caller. `contact_id` binds the caller to one contact: for this caller, the
    threads of other contacts do not exist. None does not bind it (`""` is a contact). `scopes` may have `chat`,
    `threads`, and those that plugins name for their routes.

    If `scopes` is None, the caller has every scope: it may read and delete threads, and use the routes of every plugin,
    also of plugins that are installed later. So pass `scopes` for every caller that is not an administrator. An empty
    collection grants no scope.
    """

    subject: str
    contact_id: str | None = field(default=None, kw_only=True)
    scopes: Collection[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.scopes, str):
            raise TypeError("scopes must be a collection of strings, not one string")

    def may(self, scope: str | None) -> bool:
        """Return whether the identity has `scope`. If `scope` is None, no scope is needed."""
        return scope is None or self.scopes is None or scope in self.scopes


@dataclass(frozen=True, slots=True)
class Admission:
    """A caller's identity, and the provider that admitted it with its distribution and version.

    jimsapi makes it, so a plugin cannot claim to be another provider. `provider` is None on a public server.
    """

    identity: Identity
    provider: str | None = None
    distribution: str | None = None
    version: str | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the request that resolvers declare, by lower-case name."""
        return NO_HEADERS


class AdmissionWithHeaders(Admission):
    """An admission that carries headers of the request. JSON, copies and pickles of it do not have them."""

    __slots__ = ("_headers",)
    _headers: Mapping[str, str]

    @classmethod
    def of(cls, admission: Admission, headers: Mapping[str, str]) -> Self:
        """Return the same admission with `headers`."""
        carrying = cls(admission.identity, admission.provider, admission.distribution, admission.version)
        object.__setattr__(carrying, "_headers", headers)  # the dataclass is frozen
        return carrying

    @property
    def headers(self) -> Mapping[str, str]:
        return getattr(self, "_headers", NO_HEADERS)


PUBLIC = Admission(Identity("anonymous"))
"""The admission of every caller if no auth provider is configured."""
