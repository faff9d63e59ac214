"""``start_proxy``: a proxy from its flags, from a configuration file, or from a mapping with the keys of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..proxy.flags import BudgetConfig
from ..proxy.process.server import ProxyServer, begin
from ..proxy.settings import ProxySettings
from .loading import from_mapping, load

Config = BudgetConfig | ProxySettings | Mapping[str, Any] | str | os.PathLike[str]


def start_proxy(
    config: Config | None = None, port: int | None = None, *, host: str | None = None, block: bool = True
) -> ProxyServer:
    """
    Start a proxy in front of an LLM API.

    Args:
        config: a :class:`BudgetConfig`; or a whole configuration: the path of a ``farthing.toml``, a mapping with its
            keys, or settings that were made of one. Without a ledger in it, the ledger is in memory.
        port: 0 picks a free one: see ``url`` of what is returned. None: the configuration's, else 8080.
        host: None: the configuration's, else 127.0.0.1. Another than this machine's own needs keys in the ledger.
        block: serve here until SIGTERM or Ctrl-C; False: in a thread, and return at once.

    Returns the server, running (or stopped, after *block*). Raises ConfigError naming the setting.
    """
    if config is None or isinstance(config, BudgetConfig):
        flags: BudgetConfig | None = config or BudgetConfig()
        settings = (config or BudgetConfig()).settings()
    elif isinstance(config, ProxySettings):
        flags, settings = None, config
    else:
        read = from_mapping if isinstance(config, Mapping) else load
        settings = read(config, for_proxy=True).proxy  # type: ignore[arg-type]  # each gets its own kind
        # Where nobody names a budget, the one on each request is in force, as for `farthing serve`.
        flags = None if settings.budgets else BudgetConfig()
    given: dict[str, Any] = {"port": port, "host": host}
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    return begin(ProxyServer(settings, flags), block=block)
