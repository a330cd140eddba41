"""Signs the agent card (A2A 1.0, section 8.4): a JWS (RFC 7515) of the card in canonical JSON (RFC 8785)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import serialize_compact

from jimsapi.plugins import read_plain_file

LARGEST_FILE = 65_536
"""The most bytes of the file of a key."""
LEAST_RSA_BITS = 2048
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_WAY_OUT = "create one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out a2a.pem"


class CardSigner:
    """Signs agent cards with a private key, which it never shows.

    `algorithm` is the `alg` of the signatures (RFC 7518). `keys_url` is the public URL of `public_keys`.
    """

    def __init__(self, key: ECKey | RSAKey, algorithm: str, keys_url: str) -> None:
        self._key = key
        self._algorithm = algorithm
        self._key_id = key.thumbprint()
        self._header = {"alg": algorithm, "typ": "JOSE", "kid": self._key_id, "jku": keys_url}

    def __repr__(self) -> str:
        return f"CardSigner({self._algorithm}, kid={self._key_id})"

    @property
    def public_keys(self) -> dict[str, Any]:
        """The JSON Web Key Set (RFC 7517) with the public key, whose `kid` is its thumbprint (RFC 7638)."""
        public = self._key.as_dict(private=False)
        return {"keys": [{**public, "kid": self._key_id, "alg": self._algorithm, "use": "sig"}]}

    def sign(self, card: Mapping[str, Any]) -> dict[str, Any]:
        """Return the card with a signature for each form in which clients verify it. One that is valid is enough.

        The specification keeps required fields that are empty. The official clients remove everything that is empty,
        and the one for JavaScript (1.3.0) also the security schemes, which it has converted before it verifies.
        """
        content = {name: value for name, value in card.items() if name != "signatures"}
        cleaned = _without_empty(content)
        unsecured = {name: value for name, value in cleaned.items() if name != "securitySchemes"}
        forms = dict.fromkeys(map(rfc8785.dumps, (content, cleaned, unsecured)))
        return {**content, "signatures": [self._signature(form) for form in forms]}

    def _signature(self, payload: bytes) -> dict[str, str]:
        compact = serialize_compact(self._header, payload, self._key, algorithms=[self._algorithm])
        protected, _, signature = compact.split(".")
        return {"protected": protected, "signature": signature}


def card_signer(path: Path, keys_url: str) -> CardSigner:
    """Return a signer with the private key of a file: PEM, of the type EC (P-256, P-384, P-521) or RSA.

    Raises `ValueError` if there is no such key in the file. The message does not quote the file.
    """
    try:
        text, _ = read_plain_file(path)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if len(text) > LARGEST_FILE:
        raise ValueError(f"{path}: it has {len(text)} bytes, and a key has less than {LARGEST_FILE}")
    return _signer(path, text, keys_url)


def _signer(path: Path, text: bytes, keys_url: str) -> CardSigner:
    try:
        key = load_pem_private_key(text, None)
    except TypeError:
        raise ValueError(f"{path}: the key is encrypted; decrypt it with: openssl pkey -in … -out …") from None
    except (ValueError, UnsupportedAlgorithm):  # their messages may quote the file
        raise ValueError(f"{path}: it is not a private key in PEM; {_WAY_OUT}") from None
    match key:
        case EllipticCurvePrivateKey() if key.curve.name in _CURVES:
            return CardSigner(ECKey.import_key(text), _CURVES[key.curve.name], keys_url)
        case RSAPrivateKey() if key.key_size >= LEAST_RSA_BITS:
            return CardSigner(RSAKey.import_key(text), "RS256", keys_url)
        case RSAPrivateKey():
            raise ValueError(f"{path}: an RSA key needs {LEAST_RSA_BITS} bits, and this one has {key.key_size}")
    raise ValueError(f"{path}: it is neither an EC key (P-256, P-384, P-521) nor an RSA key; {_WAY_OUT}")


def _without_empty(value: Any) -> Any:
    """Return a JSON value without empty texts, lists and objects in it."""
    if isinstance(value, Mapping):
        kept = {name: _without_empty(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if not _is_empty(each)}
    if isinstance(value, (list, tuple)):
        return [each for each in map(_without_empty, value) if not _is_empty(each)]
    return value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, Mapping, list, tuple)) and not value)
