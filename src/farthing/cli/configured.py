"""What ``farthing doctor`` finds about a configuration file: its mistakes, its prices, and whether upstreams answer."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from .. import prices
from ..errors import ConfigError
from .amounts import number_of

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
    """Its mistakes, and models without a price that it needs one of. Returns it, if a program can use it."""
    from ..config.loading import load

    try:
        found = load(path, for_proxy=True)
    except ConfigError as error:
        try:
            found = load(path)
        except ConfigError:
            for mistake in (error, *error.others):
                yield Check("configuration", "failed", _mistake_text(mistake), f"mend {path}")
            return None
        # Without a proxy these are no mistakes: in a program nobody but the program sets its tags.
        for mistake in (error, *error.others):
            says = f"no proxy can run on it: {_mistake_text(mistake)}"
            yield Check("configuration", "warning", says, f"mend {path}, if it is meant for `farthing serve`")
    counts = ((len(found.budgets), "budget"), (len(found.proxy.upstreams), "upstream"), (len(found.prices), "price"))
    yield Check("configuration", "ok", f"{path}: {', '.join(number_of(*count) for count in counts)}")
    prices.register_all(found.prices)
    for budget in found.budgets:
        for model in sorted({name for pair in budget.downgrade for name in pair}):
            if budget.usd_nano is not None and prices.explain(model).how == "unpriced":
                says = f"budget {budget.name!r} counts USD, and no price is known for {model!r} of its downgrade map"
                yield Check("priced", "warning", says, f'name it in {path}: [prices."{model}"]')
    return found


def _mistake_text(mistake: ConfigError) -> str:
    where = f"line {mistake.line}: " if mistake.line else ""
    return f"{where}{mistake.key}: {mistake.reason}"


def check_upstreams(configuration: Configuration) -> Iterator[Check]:
    """Whether a connection to each can be opened, and its certificate is trusted. Nothing is sent."""
    from ..proxy.http1.tls import Tls

    for upstream in configuration.proxy.upstreams:
        url = urlsplit(upstream.base_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            prices.check_provider(upstream.provider, "")
        except ValueError as error:
            remedy = "name one of those, or leave it out; calls are priced by the model's name alone until then"
            yield Check("upstreams", "warning", f"{upstream.name}: {error}", remedy)
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
            yield Check("upstreams", "failed", says, "check its base_url in the file, and this machine's network")
        else:
            yield Check("upstreams", "ok", f"{upstream.name}: {url.hostname}:{port} can be reached, {key}")
