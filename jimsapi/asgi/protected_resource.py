"""OAuth protected resources (RFC 9728): where clients of an app get access tokens, and how a challenge names that."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

WELL_KNOWN = "/.well-known/oauth-protected-resource"
"""The path of the metadata of a resource, in front of the path of the resource (RFC 9728, section 3.1)."""

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""A name of a scope (RFC 6749, section 3.3). Any other text could not be requested, and would break the challenge."""


class ProtectedResources:
    """The protected resources of an app, and the authorization servers that issue access tokens for them.

    - `authorization_servers`: the issuers, verbatim (RFC 8414, section 2).
    - `needed`: the scopes that each token must have. If there are none, a token needs the scope of the route.
    - `supported`: the scopes of each resource, by its path within the app. `""` is the app as a whole.
    """

    def __init__(
        self,
        authorization_servers: Iterable[str],
        needed: Iterable[str],
        supported: Mapping[str, Iterable[str]],
    ) -> None:
        self.authorization_servers = tuple(authorization_servers)
        self._needed = scope_names(needed)
        self.supported = {path: scope_names(scopes) for path, scopes in supported.items()}

    def metadata_path(self, path: str) -> str:
        """Return where the app serves the metadata of the resource that a route's `path` belongs to."""
        return WELL_KNOWN + covering(self.supported, path)

    def metadata(self, path: str, url: str) -> dict[str, Any]:
        """Return the metadata of the resource at `path`, whose absolute URL is `url` (RFC 9728, section 2)."""
        document = {"resource": url, "authorization_servers": list(self.authorization_servers)}
        if scopes := self._needed or self.supported[path]:  # a list without elements has to be left out (section 3.2)
            document["scopes_supported"] = list(scopes)
        return {**document, "bearer_methods_supported": ["header"]}

    def challenge(self, metadata_url: str, scope: str | None, missing: Iterable[str], error: str) -> str:
        """Return the challenge that names the metadata (RFC 9728, section 5.1, and RFC 6750, section 3).

        `scope` is that of the route. `missing` are scopes that the caller lacks, and `error` is the code of the error,
        or empty.
        """
        needed = self._needed or scope_names(() if scope is None else (scope,))
        scopes = scope_names([*needed, *missing])
        parts = [f'Bearer resource_metadata="{metadata_url}"']
        parts += [f'scope="{" ".join(scopes)}"'] if scopes else []
        parts += [f'error="{error}"'] if error else []
        return ", ".join(parts)


def covering(paths: Collection[str], path: str) -> str:
    """Return the longest of `paths` that contains `path`, or `""`."""
    while path and path not in paths:
        path = path.rpartition("/")[0]
    return path


def scope_names(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return each scope once, in order, without texts that cannot be names of scopes (RFC 6749, section 3.3)."""
    return tuple(scope for scope in dict.fromkeys(scopes) if _SCOPE.fullmatch(scope))
