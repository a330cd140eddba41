"""The identity of a caller."""

from collections.abc import Collection
from dataclasses import dataclass, field


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
