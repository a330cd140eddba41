"""The identity of a caller, its scopes, and the auth provider that admitted it."""

from collections.abc import Collection
from dataclasses import dataclass, field

CHAT = "chat"
"""Scope: answer a message in any protocol, and see one's own runs."""
THREADS = "threads"
"""Scope: list, read and delete threads, events and contacts."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, as an auth provider identified it.

    `subject` is the provider's name for the caller. `contact_id` binds the caller to one contact: for this caller, the
    threads of other contacts do not exist. None does not bind it (`""` is a contact). `scopes` may have `chat` and
    `threads`; None means both.
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


PUBLIC = Admission(Identity("anonymous"))
"""The admission of every caller if no auth provider is configured."""
