"""Reading ``farthing.toml``, or the same as a mapping, for either door."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..proxy.settings import DEFAULT_UPSTREAMS
from .environment import overrides
from .reading import Configuration, parse, read

IN_CODE = "configure(config=…)"
"""What owns the budgets of a mapping that has no ``name``."""
IN_ENVIRONMENT = "the environment"
"""The same, where there is no file and no mapping."""


def load(
    file: str | os.PathLike[str], *, for_proxy: bool = False, environ: Mapping[str, str] = os.environ
) -> Configuration:
    """
    The configuration in a file, the environment's word on top (see :mod:`.environment`).

    Args:
        for_proxy: a proxy will run on it: ``"env:NAME"`` is taken from the environment, and no budget may be on a tag
            that callers choose themselves.

    Raises ConfigError with every mistake: file, line and key.
    """
    shown = os.fspath(file)
    path = Path(file).expanduser()
    try:
        text = path.read_text("utf-8-sig")  # Windows editors begin files with a mark
    except OSError as error:
        raise ConfigError(
            f"the configuration cannot be read: {error.strerror or error}", key="configuration", file=shown
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the configuration is not UTF-8 (byte {error.start})", key="configuration", file=shown
        ) from None
    return read(
        parse(text, file=shown),
        source=str(path.absolute()),
        file=shown,
        text=text,
        environ=environ,
        for_proxy=for_proxy,
    )


def from_environment(*, environ: Mapping[str, str] = os.environ) -> Configuration | None:
    """
    A proxy's configuration where there is no file: what the environment says, over the upstreams that there are without
    any. None where it says nothing, or nothing but the ledger. Raises ConfigError with every mistake.
    """
    if all(of.path == ("ledger",) for of in overrides(environ, {})):
        return None
    upstreams = {of.name: {"base_url": of.base_url, "speaks": list(of.speaks)} for of in DEFAULT_UPSTREAMS}
    return read({"upstreams": upstreams}, source=IN_ENVIRONMENT, environ=environ, for_proxy=True)


def from_mapping(
    config: Mapping[str, Any], *, for_proxy: bool = False, environ: Mapping[str, str] = os.environ
) -> Configuration:
    """The same of a mapping with the keys of the file: ``{"ledger": …, "budgets": [{"name": …}]}``."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"must be a mapping with the keys of farthing.toml, not {config!r}", key="config")
    return read(config, source=IN_CODE, environ=environ, for_proxy=for_proxy)
