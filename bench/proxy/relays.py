"""The relays under test: none, nginx, a bare one in Python, and farthing's proxy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from .processes import LOAD_CORE, RELAY_CORE, compiled, cpu_seconds, free_port, memory_bytes, running, written_bytes

DIRECT, NGINX, BARE, FARTHING = "direct", "nginx", "bare relay", "farthing"


class Relay(NamedTuple):
    """Something that listens. ``pid`` is 0 where there is nothing between the load and the provider."""

    name: str
    port: int
    pid: int

    def cpu(self) -> float:
        return cpu_seconds(self.pid) if self.pid else 0.0

    def memory(self) -> int:
        return memory_bytes(self.pid) if self.pid else 0

    def written(self) -> int:
        return written_bytes(self.pid) if self.pid else 0


class Field(NamedTuple):
    """All that runs."""

    generator: Path
    provider: Relay
    relays: dict[str, Relay]
    ledger: Path
    folder: Path


NGINX_CONF = """
daemon off; pid {folder}/{name}.pid; worker_processes 1; error_log stderr error; user {user};
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
  fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
  keepalive_requests 100000000; keepalive_timeout 300s; client_body_buffer_size 64k;
  {body}
}}
"""
RELAYING = """
  upstream plain {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}
  upstream secure {{ server 127.0.0.1:{secure}; keepalive 512; keepalive_requests 100000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 300s;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://plain; }}
    location /tls/ {{ proxy_pass https://secure/; proxy_ssl_server_name on; proxy_ssl_name localhost; }}
  }}
"""
TERMINATING = """
  upstream plain {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 300s;
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096; ssl_certificate {folder}/tls.pem; ssl_certificate_key {folder}/tls.key;
    location / {{ proxy_pass http://plain; }}
  }}
"""


@contextmanager
def field(folder: Path) -> Iterator[Field]:
    """Everything, started: the provider, TLS in front of it, and each relay on the other core."""
    if shutil.which("nginx") is None:
        raise SystemExit(
            "the proxy's bench needs nginx, to have something to compare with (apt-get install nginx-light)"
        )
    make_certificate(folder)
    with ExitStack() as stack:

        def start(name: str, command: Callable[[int], list[str]], core: int = RELAY_CORE) -> Relay:
            port = free_port()
            log = folder / f"{name.replace(' ', '-')}.log"
            env = {"SSL_CERT_FILE": str(folder / "tls.pem")}
            pid = stack.enter_context(running(command(port), core=core, port=port, log=log, env=env))
            return Relay(name, port, pid)

        mock = compiled("mock", folder)
        provider = start("provider", lambda port: [str(mock), str(port)], LOAD_CORE)
        secure = start("tls", lambda port: _nginx(folder, "tls", TERMINATING, port, provider.port), LOAD_CORE)
        plain_url, secure_url = f"http://127.0.0.1:{provider.port}", f"https://localhost:{secure.port}"
        ledger = folder / "ledger.db"

        def python(module: str, port: int, *more: str) -> list[str]:
            return [sys.executable, "-m", f"bench.proxy.{module}", str(port), plain_url, secure_url, *more]

        relays = [
            Relay(DIRECT, provider.port, 0),
            start(NGINX, lambda port: _nginx(folder, "relay", RELAYING, port, provider.port, secure=secure.port)),
            start(BARE, lambda port: python("bare", port)),
            start(FARTHING, lambda port: python("ours", port, f"sqlite:///{ledger}")),
        ]
        yield Field(compiled("loadgen", folder), provider, {relay.name: relay for relay in relays}, ledger, folder)


def make_certificate(folder: Path) -> None:
    """A certificate for localhost that is its own authority."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", "tls.key", "-out", "tls.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def _nginx(folder: Path, name: str, body: str, port: int, upstream: int, *, secure: int = 0) -> list[str]:
    import getpass

    inner = body.format(port=port, upstream=upstream, secure=secure, folder=folder)
    conf = folder / f"{name}.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, name=name, body=inner, user=getpass.getuser()))
    return ["nginx", "-c", str(conf), "-p", str(folder)]
