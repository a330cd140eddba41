"""Who called, and what they may do."""

from collections.abc import Collection
from dataclasses import dataclass, field

CHAT = "chat"
"""Scope: answer a message in any protocol, and see one's own runs."""
THREADS = "threads"
"""Scope: list, read and delete threads, events and contacts."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who called, by an auth provider's word.

    `contact_id` binds the caller to one contact (`""` is a contact; None is unbound): every other contact's threads do
    not exist for it. `scopes` are what it may do, `chat` and `threads`; None is both.
    """

    subject: str
    contact_id: str | None = field(default=None, kw_only=True)
    scopes: Collection[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.scopes, str):
            raise TypeError("scopes must be a collection of strings, not one string")

    def may(self, scope: str | None) -> bool:
        """Whether the identity has `scope`; a route that names none is open to every identity."""
        return scope is None or self.scopes is None or scope in self.scopes


@dataclass(frozen=True, slots=True)
class Admission:
    """The host's record of who let a caller in: a plugin cannot forge its provenance.

    `provider` is None on a public server.
    """

    identity: Identity
    provider: str | None = None
    distribution: str | None = None
    version: str | None = None


PUBLIC = Admission(Identity("anonymous"))
"""Everybody's admission where no auth provider is configured."""
