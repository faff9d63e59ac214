"""TLS towards upstreams: whom to trust, and the context that says so."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from ...errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tls:
    """
    Certificates and names are always checked; there is no switch for that.

    ``ca_file`` is a PEM bundle that is trusted instead of the system's (which ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``
    move, as everywhere). ``cert_file`` and ``key_file`` are this client's own certificate, where a gateway asks for it.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def context(self) -> ssl.SSLContext:
        """Raises ConfigError: a file is missing or holds no certificates. Takes milliseconds: made once a client."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"no certificates can be read from {self.ca_file!r}: {error}", key="ca_file") from error
        if self.cert_file is not None:
            try:
                context.load_cert_chain(self.cert_file, self.key_file)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"unusable certificate {self.cert_file!r}: {error}", key="cert_file") from error
        context.set_alpn_protocols(["http/1.1"])
        return context
