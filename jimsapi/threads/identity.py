"""The identity of a caller."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, as an auth provider identified it.

    `subject` is the provider's name for the caller. `contact_id` binds the caller to one contact: for this caller, the
    threads of other contacts do not exist. None does not bind it (`""` is a contact). `scopes` may have
    those of jimsapi (`jimsapi.runs.SCOPES`) and those that plugins name for their routes.

    If `scopes` is None, the caller has every scope: it may read and delete threads, and use the routes of every plugin,
    also of plugins that are installed later. So pass `scopes` for every caller that is not an administrator. An empty
    collection grants no scope.

    Raises `TypeError` for a `subject` or a `contact_id` that is not a `str`, such as a claim that is missing, and for
    `scopes` that are one `str`.
    """

    subject: str
    contact_id: str | None = field(default=None, kw_only=True)
    scopes: Collection[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.subject, str):  # callers without one would share limits, budgets and idempotency keys
            raise TypeError(f"the subject of an identity must be a str, not {type(self.subject).__name__}")
        if self.contact_id is not None and not isinstance(self.contact_id, str):
            raise TypeError(f"contact_id must be a str or None, not {type(self.contact_id).__name__}")
        if isinstance(self.scopes, str):
            raise TypeError("scopes must be a collection of strings, not one string")

    def may(self, scope: str | None) -> bool:
        """Return whether the identity has `scope`. If `scope` is None, no scope is needed."""
        return scope is None or self.scopes is None or scope in self.scopes

    @property
    def claims(self) -> Mapping[str, Any]:
        """What the auth provider passes on about the caller, such as a name; empty by default. For pipelines."""
        return NO_CLAIMS

    def with_claims(self, claims: Mapping[str, Any]) -> "Identity":
        """Return the same identity with `claims`, which pipelines read as `ctx.identity.claims`.

        Pass on only what pipelines need: they may show it to a model, or store it.
        """
        return IdentityWithClaims.of(self, claims)


class IdentityWithClaims(Identity):
    """An identity that carries claims. JSON, copies and pickles of it do not have them, and no text shows them."""

    __slots__ = ("_claims",)
    _claims: Mapping[str, Any]

    @classmethod
    def of(cls, identity: Identity, claims: Mapping[str, Any]) -> Self:
        """Return the same identity with `claims`."""
        carrying = cls(identity.subject, contact_id=identity.contact_id, scopes=identity.scopes)
        object.__setattr__(carrying, "_claims", MappingProxyType(dict(claims)))  # the dataclass is frozen
        return carrying

    @property
    def claims(self) -> Mapping[str, Any]:
        return getattr(self, "_claims", NO_CLAIMS)
