"""nginx, Caddy and Traefik with the configurations of `deploy/`, as real processes on free ports of 127.0.0.1.

A configuration is used as it stands. Only what belongs to one machine is replaced: ports, folders, certificates.
"""

import os
import shutil
import ssl
import subprocess
import sysconfig
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import trustme

from tests.ports import free_port
from tests.serving import ROOT
from tests.waiting import eventually

DEPLOY = ROOT / "deploy"
DEFAULT_READ_TIMEOUT = "1s"
"""What stands in for nginx's default of 60 seconds, so that a test sees whether the configuration raises it."""

_NGINX = """\
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_read_timeout {read_timeout};
    include {folder}/jimsapi.conf;
}}
"""


class Proxy:
    """A proxy in front of `upstreams`, from entering to leaving. These are two ports; Caddy may also have one.

    `folder` gets its files, and `run` is the folder in place of `/run/jimsapi`.
    """

    def __init__(self, folder: Path, upstreams: Sequence[int], *, run: Path | None = None) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.run = run or folder
        self.upstreams = upstreams
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Write the configuration. Returns the command that serves with it."""
        raise NotImplementedError

    def env(self) -> Mapping[str, str]:
        """Further variables of the process."""
        return {}

    def __enter__(self) -> Self:
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder), **self.env()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(self._serves)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)

    @property
    def log(self) -> Path:
        """What the process has written."""
        return self.folder / "output.log"

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def tls(self) -> ssl.SSLContext:
        """How a client connects to it. Its certificate is one of the test's own."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def client(self) -> httpx.Client:
        """A client of it."""
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=self.tls)

    def async_client(self) -> httpx.AsyncClient:
        """An async client of it."""
        return httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False, verify=self.tls)

    def _serves(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.command()} ended:\n{self.log.read_text()}")
        try:  # the port may be open before the certificate and the routes are there
            with self.client() as client:
                return client.get("/healthz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


class Nginx(Proxy):
    """nginx with `deploy/nginx`."""

    def command(self) -> list[str]:
        certificate = trustme.CA().issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(self.folder / "fullchain.pem")
        certificate.private_key_pem.write_to_path(self.folder / "privkey.pem")
        first, second = self.upstreams
        replacements = {
            "listen 80;": f"listen 127.0.0.1:{free_port()};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "/etc/letsencrypt/live/chat.example.org": str(self.folder),
            "/etc/nginx": str(self.folder),
            "/run/jimsapi/8081": f"{self.run}/{first}",
            "/run/jimsapi/8082": f"{self.run}/{second}",
            "127.0.0.1:8081": f"127.0.0.1:{first}",
            "127.0.0.1:8082": f"127.0.0.1:{second}",
        }
        copy_replaced(DEPLOY / "nginx" / "jimsapi.conf", self.folder, replacements)
        copy_replaced(DEPLOY / "nginx" / "jimsapi-proxy.conf", self.folder, {})
        # A worker of another user could not read the test's folder.
        user = "user root;\n" if os.geteuid() == 0 else ""
        main = user + _NGINX.format(folder=self.folder, read_timeout=DEFAULT_READ_TIMEOUT)
        (self.folder / "nginx.conf").write_text(main)
        return [program("nginx"), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]


class NginxOnSockets(Nginx):
    """nginx with `deploy/nginx`, as docs/deploy.md changes it for Unix sockets. They are in the folder of the test."""

    def socket(self, upstream: int) -> Path:
        """The socket of an instance."""
        return self.run / f"{upstream}.sock"

    def command(self) -> list[str]:
        command = super().command()
        configuration = self.folder / "jimsapi.conf"
        text = configuration.read_text()
        for upstream in self.upstreams:
            assert text.count(f"server 127.0.0.1:{upstream}") == 2
            text = text.replace(f"server 127.0.0.1:{upstream}", f"server unix:{self.socket(upstream)}")
        configuration.write_text(text)
        return command


class NginxBelow(Nginx):
    """nginx with `deploy/nginx`, as docs/deploy.md changes it to show jimsapi below `/bot` and to keep the path."""

    def command(self) -> list[str]:
        command = super().command()
        configuration = self.folder / "jimsapi.conf"
        text = configuration.read_text()
        redirects, serves = text.rsplit("\nserver {", 1)
        assert serves.count("location / {") == 1
        configuration.write_text(f"{redirects}\nserver {{{serves.replace('location / {', 'location /bot/ {')}")
        return command

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"{super().url}/bot"


class Caddy(Proxy):
    """Caddy with `deploy/caddy/Caddyfile`, with a certificate of its own that this machine does not trust."""

    def command(self) -> list[str]:
        file = self.folder / "Caddyfile"
        options = "skip_install_trust\n\tauto_https disable_redirects"
        file.write_text(f"{{\n\t{options}\n}}\nimport {DEPLOY / 'caddy' / 'Caddyfile'}\n")
        return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]

    def env(self) -> Mapping[str, str]:
        return {
            "CADDY_ADMIN": f"127.0.0.1:{free_port()}",
            "XDG_DATA_HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder),
            "JIMSAPI_SITE": self.url,
            "JIMSAPI_WAIT": "10s" if len(self.upstreams) > 1 else "40s",  # as the compose files say
            "JIMSAPI_UPSTREAMS": " ".join(f"127.0.0.1:{port}" for port in self.upstreams),
        }


class CaddyBelow(Proxy):
    """Caddy with several servers below paths of one host, over TLS with a certificate of `authority`.

    `servers` has the port of each server by its path, which is empty for the root of the host. Caddy removes the path
    from requests, unless it is in `kept`. Requests for the metadata of OAuth protected resources whose path has the
    path of a server behind the well-known part (RFC 9728, 3.1) go to that server as they are, if `passes_metadata`.
    """

    def __init__(self, folder: Path, *, kept: Collection[str] = (), passes_metadata: bool = True) -> None:
        super().__init__(folder, ())
        self.servers: dict[str, int] = {}
        self.authority = trustme.CA()
        self._kept = kept
        self._passes_metadata = passes_metadata

    def command(self) -> list[str]:
        certificate = self.authority.issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(self.folder / "chain.pem")
        certificate.private_key_pem.write_to_path(self.folder / "key.pem")
        lines = ["{", "admin off", "auto_https off", "skip_install_trust", "}", f"{self.url} {{"]
        lines.append(f"tls {self.folder / 'chain.pem'} {self.folder / 'key.pem'}")
        for path, port in sorted(self.servers.items(), reverse=True):  # the root comes last
            server = f"{{\nreverse_proxy 127.0.0.1:{port} {{\ntransport http {{\nkeepalive 4s\n}}\n}}\n}}"
            if path and self._passes_metadata:
                lines.append(f"handle /.well-known/oauth-protected-resource{path}* {server}")
            lines.append(f"{'handle' if path in self._kept or not path else 'handle_path'} {path}/* {server}")
        file = self.folder / "Caddyfile"
        file.write_text("\n".join([*lines, "}"]) + "\n", encoding="utf-8")
        return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]

    def env(self) -> Mapping[str, str]:
        return {"XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}

    @property
    def tls(self) -> ssl.SSLContext:
        """How a client connects to it: it trusts the authority."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


class AsksAgain(httpx.HTTPTransport):
    """Sends a request once more if it was not answered in time."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return super().handle_request(request)
        except httpx.ReadTimeout:
            return super().handle_request(request)


class Traefik(Proxy):
    """Traefik with `deploy/traefik`, with the certificate that it makes itself."""

    def client(self) -> httpx.Client:
        """A client of it, which asks again: Traefik may lose the connection to an instance (docs/deploy.md)."""
        return httpx.Client(base_url=self.url, timeout=10, trust_env=False, transport=AsksAgain(verify=self.tls))

    def command(self) -> list[str]:
        first, second = self.upstreams
        static = {
            '":80"': f'"127.0.0.1:{free_port()}"',
            '":443"': f'"127.0.0.1:{self.port}"',
            "tls:\n        certResolver: letsencrypt": "tls: {}",
            "/var/lib/traefik": str(self.folder),
            "/etc/traefik": str(self.folder),
        }
        dynamic = {
            "chat.example.org": "127.0.0.1",
            "127.0.0.1:8081": f"127.0.0.1:{first}",
            "127.0.0.1:8082": f"127.0.0.1:{second}",
        }
        copy_replaced(DEPLOY / "traefik" / "traefik.yaml", self.folder, static)
        copy_replaced(DEPLOY / "traefik" / "jimsapi.yaml", self.folder, dynamic)
        return [program("traefik"), f"--configFile={self.folder / 'traefik.yaml'}"]


PROXIES: dict[str, type[Proxy]] = {"nginx": Nginx, "caddy": Caddy, "traefik": Traefik}


def program(name: str) -> str:
    """The path of a program of this environment, or of the system. Raises `FileNotFoundError`."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; `make test-deploy` installs it")
    return found


def copy_replaced(source: Path, folder: Path, replacements: Mapping[str, str]) -> Path:
    """Copy a file into a folder, with other texts in it. Raises `ValueError` for one that the file does not have."""
    text = source.read_text(encoding="utf-8")
    for old, new in replacements.items():
        if old not in text:
            raise ValueError(f"{source} has no {old!r}")
        text = text.replace(old, new)
    copy = folder / source.name
    copy.write_text(text, encoding="utf-8")
    return copy
