"""An OpenID Connect issuer for tests and benchmarks: a real server over TLS, with keys, their rotation, and faults."""

import asyncio
import json
import socket
import ssl
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Self

import trustme
import uvicorn
from joserfc.jwa import JWS_ALGORITHMS
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

AUDIENCE = "jimsapi-tests"
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/keys"

Fault = Literal["status", "redirect", "html", "half", "huge", "hang", "drip"]

_CURVES: dict[str, Any] = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_MODELS = {model.name: model for model in JWS_ALGORITHMS}


class SigningKey:
    """A private key of the issuer: `algorithm` is what it signs with, `kid` its name (None: it has none)."""

    def __init__(self, algorithm: str, kid: str | None) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.key: Key
        if algorithm[:2] in ("RS", "PS"):
            self.key = RSAKey.generate_key(2048)
        elif algorithm in _CURVES:
            self.key = ECKey.generate_key(_CURVES[algorithm])
        else:
            self.key = OKPKey.generate_key("Ed448" if algorithm == "Ed448" else "Ed25519")

    def jwk(self) -> dict[str, Any]:
        """The public key as the issuer shows it."""
        public = {**self.key.as_dict(private=False), "use": "sig", "alg": self.algorithm}
        return public if self.kid is None else {**public, "kid": self.kid}

    def pem(self) -> bytes:
        """The public key as PEM."""
        assert isinstance(self.key, RSAKey | ECKey | OKPKey)
        return self.key.as_pem(private=False)

    def sign(self, message: bytes, algorithm: str | None = None) -> bytes:
        """Sign as `algorithm` has it, the key's own if left out."""
        return _MODELS[algorithm or self.algorithm].sign(message, self.key)


class FakeIssuer:
    """An issuer that serves from entering to leaving, on a port of 127.0.0.1 that it keeps over `stop()` and `start()`.

        with FakeIssuer() as issuer:
            api = create_api(app, **issuer.settings())           # or: Served(*issuer.flags())
            headers = {"authorization": f"Bearer {issuer.token(sub='ann')}"}

    `url` is its name as an issuer, `ca_file` trusts it. `asked` lists the paths that were asked for, in order.
    `discovery` and `jwks` are what it answers with; a test may change them. `break_with(fault)` and `mend()` make it
    fail and work again, `stop()` and `start()` close and open the port; `hung` is set once it leaves a request hanging.
    """

    def __init__(self, path: str = "", *, algorithm: str = "RS256", tls: bool = True) -> None:
        self._folder = TemporaryDirectory()
        self._tls = tls
        self._authority = trustme.CA()
        self.ca_file = Path(self._folder.name) / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._path = path.rstrip("/")
        self.origin = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.url = self.origin + path
        self.asked: list[str] = []
        self.hung = threading.Event()
        self.keys: list[SigningKey] = []
        self.jwks: dict[str, Any] = {}
        self.discovery: dict[str, Any] = {}
        self._fault: Fault | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.reset(algorithm)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def reset(self, algorithm: str = "RS256") -> None:
        """Reset the issuer: a new key, and no recorded requests."""
        self.mend()
        self.asked.clear()
        self.discovery = {"issuer": self.url, "jwks_uri": self.origin + KEYS}
        self.rotate(algorithm)

    # Using it

    def settings(self, **more: Any) -> dict[str, Any]:
        """Keywords of `create_api` with which it is trusted."""
        trusted = {"oidc_issuer": self.url, "oidc_audience": AUDIENCE}
        return {**trusted, **({"oidc_ca_file": str(self.ca_file)} if self._tls else {}), **more}

    def flags(self, **more: Any) -> list[str]:
        """The same as flags of the command."""
        flags = []
        for name, value in self.settings(**more).items():
            for one in value if isinstance(value, tuple | list) else (value,):
                flags += ["--" + name.replace("_", "-"), str(one)]
        return flags

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good access token, with these changed; a claim that is `...` is left out."""
        now = int(time.time())
        claims = {
            "iss": self.url, "sub": "ann", "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 600, "scope": "chat",
        }  # fmt: skip
        return {name: value for name, value in {**claims, **changes}.items() if value is not ...}

    def token(self, *, header: Mapping[str, Any] | None = None, key: SigningKey | None = None, **claims: Any) -> str:
        """A signed access token: good, but for the changes of its `claims` and `header`, or of another `key`."""
        key = key or self.keys[-1]
        base = {"alg": key.algorithm, "typ": "at+jwt", "kid": key.kid if key.kid is not None else ...}
        head = {name: value for name, value in {**base, **(header or {})}.items() if value is not ...}
        return self.sign(encode(head), encode(self.claims(**claims)), key)

    def sign(self, header: bytes, payload: bytes, key: SigningKey | None = None) -> str:
        """Build a token of any bytes, and sign it with the key's own algorithm, whatever its header is."""
        signed = base64url(header) + b"." + base64url(payload)
        return (signed + b"." + base64url((key or self.keys[-1]).sign(signed))).decode()

    # Its keys

    def add_key(self, algorithm: str = "RS256", kid: str | None = "") -> SigningKey:
        """Show one more key, with which tokens are signed from now on. Its `kid` is made up if left out."""
        key = SigningKey(algorithm, f"key-{time.monotonic_ns()}" if kid == "" else kid)
        self.keys.append(key)
        self.jwks = {"keys": [one.jwk() for one in self.keys]}
        return key

    def rotate(self, algorithm: str = "RS256", kid: str | None = "") -> SigningKey:
        """Replace all keys by a new one, and return it."""
        self.keys.clear()
        return self.add_key(algorithm, kid)

    # Its faults

    def break_with(self, fault: Fault) -> None:
        """Answer wrongly from now on: a 503, a redirect, HTML, half a JSON, 2 MiB, nothing, or blanks without end."""
        self.hung.clear()
        self._fault = fault

    def mend(self) -> None:
        """Answer as it should again; what hangs is answered now."""
        self._fault = None

    def start(self) -> None:
        """Open the port and serve, if it does not already."""
        if self._server is not None:
            return
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(256)  # from here on connections wait for the thread
        config = uvicorn.Config(
            self._answer, interface="asgi3", lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
        config.load()
        if self._tls:
            config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert("127.0.0.1").configure_cert(config.ssl)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listening],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()
        self._server = self._thread = None

    async def _answer(self, scope: Any, _: Any, send: Any) -> None:
        path = scope["path"].removeprefix(self._path)
        self.asked.append(path)
        status, headers, body = 200, [(b"content-type", b"application/json")], b""
        match self._fault:
            case "status":
                status = 503
            case "redirect":
                status, headers = 302, [(b"location", (self.origin + "/elsewhere").encode())]
            case "html":
                body = b"<html>Welcome</html>"
            case "half":
                body = self._document(path)[:-5]
            case "huge":
                body = self._document(path) + b" " * 2_097_152
            case "drip":
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                while self._fails_with("drip"):
                    await send({"type": "http.response.body", "body": b" ", "more_body": True})
                    await asyncio.sleep(0.02)
                await send({"type": "http.response.body", "body": b""})
                return
            case "hang" | None:
                while self._fails_with("hang"):
                    self.hung.set()
                    await asyncio.sleep(0.01)
                body = self._document(path)
                status = 200 if body else 404
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _document(self, path: str) -> bytes:
        found = {DISCOVERY: self.discovery, KEYS: self.jwks, "/elsewhere": self.jwks}.get(path)
        return b"" if found is None else encode(found)

    def _fails_with(self, fault: Fault) -> bool:
        return self._fault == fault and self._server is not None and not self._server.should_exit


def encode(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def base64url(data: bytes) -> bytes:
    """Base64url without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=")


def unbase64url(text: str) -> bytes:
    """What `base64url` encoded."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
