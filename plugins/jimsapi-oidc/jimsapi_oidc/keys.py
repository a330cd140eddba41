"""The issuer's public keys, and the verification of signatures."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, get_args

from joserfc.errors import JoseError
from joserfc.jwa import JWS_ALGORITHMS, JWSAlgModel
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from jimsapi_oidc import Algorithm
from jimsapi_oidc.refusals import TokenInvalid
from jimsapi_oidc.tokens import Token

logger = logging.getLogger("jimsapi.oidc")

MIN_RSA_BITS = 2048
"""RFC 7518, section 3.3."""

# The public members of each type of key. The plugin ignores all others, such as private keys, certificates and URLs.
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_SIGNING_CURVES = frozenset({"Ed25519", "Ed448"})

_MODELS: dict[str, JWSAlgModel] = {model.name: model for model in JWS_ALGORITHMS if model.name in get_args(Algorithm)}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of the issuer, and the allowed algorithms for which it may be used."""

    kid: str | None
    algorithms: frozenset[str]
    key: Key


class KeySet:
    """The keys of an issuer from one fetch."""

    def __init__(self, keys: Collection[PublicKey]) -> None:
        self._keys = tuple(keys)
        self._ids = frozenset(key.kid for key in keys)

    def __len__(self) -> int:
        return len(self._keys)

    def knows(self, kid: str) -> bool:
        """Return whether a key has this id."""
        return kid in self._ids

    def verify(self, token: Token) -> None:
        """Verify a token's signature. Raises `TokenInvalid` if it is wrong, or if no key fits."""
        fitting = [key for key in self._keys if token.algorithm in key.algorithms]
        if token.kid is not None:
            fitting = [key for key in fitting if key.kid == token.kid]
        if not fitting:
            raise TokenInvalid("key", "the issuer has no key with this id for this algorithm")
        if token.kid is None and len(fitting) > 1:
            raise TokenInvalid("key", "the token does not name the key that signed it, and several fit")
        if not any(_is_signed(token, key) for key in fitting):
            raise TokenInvalid("signature", "the token's signature is wrong")


def _is_signed(token: Token, public: PublicKey) -> bool:
    try:
        return _MODELS[token.algorithm].verify(token.signed, token.signature, public.key)
    except (JoseError, ValueError, TypeError):
        return False


def read_keys(document: dict[str, Any], algorithms: frozenset[str]) -> KeySet:
    """Read a JWK Set (RFC 7517, section 5). Keys that cannot verify these algorithms are ignored, as the RFC requires.

    Raises `ValueError` if the document is not a JWK Set.
    """
    jwks = document.get("keys")
    if not isinstance(jwks, list):
        raise ValueError("has no list of keys")
    keys = (_read_key(jwk, algorithms) for jwk in jwks)
    return KeySet([key for key in keys if key is not None])


def _read_key(jwk: Any, algorithms: frozenset[str]) -> PublicKey | None:
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return None
    operations, kid = jwk.get("key_ops", ["verify"]), jwk.get("kid")
    if not isinstance(operations, list) or "verify" not in operations or not isinstance(kid, str | None):
        return None
    try:
        key = _import(jwk)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("ignoring an unusable key of the issuer: %s", type(error).__name__)
        return None
    if key is None:
        return None
    key_algorithms = frozenset(name for name in algorithms if _fits(name, key) and jwk.get("alg", name) == name)
    return PublicKey(kid, key_algorithms, key) if key_algorithms else None


def _import(jwk: dict[str, Any]) -> Key | None:
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _MEMBERS:  # for example a symmetric key, which is not public
        return None
    public = {"kty": kind, **{name: jwk[name] for name in _MEMBERS[kind]}}
    if kind == "EC":
        return ECKey.import_key(public)
    if kind == "OKP":
        return OKPKey.import_key(public) if jwk["crv"] in _SIGNING_CURVES else None
    if len(jwk["n"]) * 6 >= MIN_RSA_BITS:  # check before the import, which would print a warning for a short key
        key = RSAKey.import_key(public)
        if key.public_key.key_size >= MIN_RSA_BITS:
            return key
    raise ValueError("an RSA key of less than 2048 bits")


def _fits(name: str, key: Key) -> bool:
    """Whether a key has the type and curve of an algorithm."""
    try:
        _MODELS[name].check_key(key)
    except JoseError:
        return False
    return True
