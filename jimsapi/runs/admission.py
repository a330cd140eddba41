"""The admission of a caller by an auth provider."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from jimsapi.threads.identity import Identity

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


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
