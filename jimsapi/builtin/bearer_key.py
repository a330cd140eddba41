"""Auth by shared keys: `Authorization: Bearer <key>` (RFC 6750). Several may be valid, to rotate them."""

from jimsapi.asgi.connection import Connection
from jimsapi.plugins.hooks import hookimpl
from jimsapi.plugins.options import Options, Secret, Settings, option
from jimsapi.plugins.protocols import InvalidCredentials
from jimsapi.service.identity import Identity


class KeyOptions(Options, prefix="api"):
    """Options of the bearer key."""

    key: tuple[Secret, ...] = option(help="A key that callers send as a bearer token; repeat it to rotate keys.")


class BearerKey:
    """Admits holders of a key, unbound and with every scope."""

    name = "key"
    challenge = 'Bearer realm="jimsapi"'

    def __init__(self, keys: tuple[Secret, ...]) -> None:
        self._keys = keys

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Admit a right key; None without a bearer token; `InvalidCredentials` for a wrong or empty one."""
        authorization = connection.headers.get("authorization")
        if authorization is None:
            return None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = token.strip(" ")
        # Every key is compared, so that the time taken does not tell which one matched.
        if token and sum(key.matches(token) for key in self._keys):
            return _HOLDER
        raise InvalidCredentials("no such key")


_HOLDER = Identity("key")


@hookimpl
def jimsapi_options() -> type[Options]:
    return KeyOptions


@hookimpl
def jimsapi_auth_provider(settings: Settings) -> BearerKey | None:
    keys = settings.get(KeyOptions).key
    return BearerKey(keys) if keys else None
