"""What ``farthing doctor`` finds about a configuration file: its mistakes, its prices, and whether upstreams answer."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from .. import prices
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..config.reading import Configuration

Status = Literal["ok", "note", "warning", "failed"]
REACH_SECONDS = 5.0


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    status: Status
    says: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "remedy": self.remedy or None}


def check_configuration(path: str) -> Generator[Check, None, Configuration | None]:
    """Its mistakes, and models without a price that it needs one of. Returns it, if it is right."""
    from ..config.loading import load

    try:
        found = load(path, for_proxy=True)
    except ConfigError as error:
        for mistake in (error, *error.others):
            where = f"line {mistake.line}: " if mistake.line else ""
            yield Check("configuration", "failed", f"{where}{mistake.key}: {mistake.reason}", f"mend {path}")
        return None
    number = f"{len(found.budgets)} budgets, {len(found.proxy.upstreams)} upstreams, {len(found.prices)} prices"
    yield Check("configuration", "ok", f"{path} is right: {number}")
    prices.register_all(found.prices)
    for budget in found.budgets:
        for model in sorted({name for pair in budget.downgrade for name in pair}):
            if budget.usd_nano is not None and prices.explain(model).how == "unpriced":
                says = f"budget {budget.name!r} counts USD, and {model!r} of its downgrade has no known price"
                yield Check("priced", "warning", says, f'name it in {path}: [prices."{model}"]')
    return found


def check_upstreams(configuration: Configuration) -> Iterator[Check]:
    """Whether a connection to each can be opened, and its certificate is trusted. Nothing is sent."""
    from ..proxy.http1.tls import Tls

    for upstream in configuration.proxy.upstreams:
        url = urlsplit(upstream.base_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        key = "with a key of its own" if upstream.api_key else "with the callers' own keys"
        try:
            with socket.create_connection((url.hostname or "", port), timeout=REACH_SECONDS) as plain:
                if url.scheme == "https":
                    context = (upstream.tls or Tls()).context()
                    context.wrap_socket(plain, server_hostname=url.hostname).close()
        except ssl.SSLCertVerificationError as error:
            says = f"{upstream.name}: {url.hostname}:{port} is not trusted: {error.verify_message}"
            yield Check("upstreams", "failed", says, "name the authority of its certificate as its ca_file")
        except (OSError, ConfigError) as error:
            says = f"{upstream.name}: {url.hostname}:{port} cannot be reached: {error}"
            yield Check("upstreams", "failed", says, "check its base_url, and this machine's network")
        else:
            yield Check("upstreams", "ok", f"{upstream.name}: {url.hostname}:{port} can be reached, {key}")
