"""
Settings of this process: which ledger, and what to do where a call is not plain sailing.

Validated when given; an unknown or unusable value is a ConfigError that names its key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import ConfigError
from ..kernel.ledger import SUSPECT_POLICIES
from ..stores.contract import DURABILITIES, SweepPolicy

UNPRICED = ("reject", "tokens_only")
"""What happens to a call without a known price under a budget in USD; or ``price_as:<model>``."""
STORE_FAILURE = ("deny", "allow")
ENVIRONMENT = "FARTHING_"
"""What the name of an environment variable begins with; the setting's own name in capitals follows."""
_TRUTHS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """See :func:`farthing.configure` for what each means."""

    ledger: str | None = None
    durability: str = "full"
    unpriced: str = "reject"
    on_store_failure: str = "deny"
    max_records: int | None = 100_000
    abort_margin_tokens: int = 64
    suspect_policy: str = "settle_at_hold"
    suspect_after_hours: float = 24.0
    follow_threads: bool = True
    watch: bool = True
    retention_days: int | None = None
    stale_prices_after_days: int | None = 45

    def __post_init__(self) -> None:
        if self.ledger is not None and not isinstance(self.ledger, str):
            raise ConfigError(
                f"must be a path or a URL such as 'sqlite:///ledger.db', not {self.ledger!r}", key="ledger"
            )
        check_choice("durability", self.durability, DURABILITIES)
        _unpriced(self.unpriced)
        check_choice("on_store_failure", self.on_store_failure, STORE_FAILURE)
        check_choice("suspect_policy", self.suspect_policy, SUSPECT_POLICIES)
        if self.max_records is not None:
            check_at_least("max_records", self.max_records, 1)
        for key, least in (("retention_days", 1), ("stale_prices_after_days", 0)):
            if getattr(self, key) is not None:
                check_at_least(key, getattr(self, key), least)
        check_at_least("abort_margin_tokens", self.abort_margin_tokens, 0)
        hours = self.suspect_after_hours
        if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 0 <= hours <= 24 * 3650:
            raise ConfigError(f"must be a number of hours from 0 to 87600, not {hours!r}", key="suspect_after_hours")
        for key in ("follow_threads", "watch"):
            if not isinstance(getattr(self, key), bool):
                raise ConfigError(f"must be True or False, not {getattr(self, key)!r}", key=key)

    @property
    def price_as(self) -> str | None:
        """The model whose price unpriced models are given, if that is the policy."""
        policy, _, model = self.unpriced.partition(":")
        return model if policy == "price_as" else None

    @property
    def sweep_policy(self) -> SweepPolicy:
        return SweepPolicy(round(self.suspect_after_hours * 3_600_000), self.suspect_policy)

    def changed(self, **changes: Any) -> Settings:
        """With these settings changed. Raises ConfigError for an unknown key or an unusable value."""
        known = {field.name for field in fields(self)}
        for key in changes:
            if key not in known:
                raise ConfigError(f"unknown setting; known are {', '.join(sorted(known))}", key=key)
        if isinstance(changes.get("ledger"), os.PathLike):
            changes["ledger"] = os.fspath(changes["ledger"])
        return replace(self, **changes)


def from_environment() -> Settings:
    """The settings a process starts with: every one may be given as ``FARTHING_…``. Raises ConfigError naming it."""
    settings = Settings()
    for field in fields(Settings):
        variable = f"{ENVIRONMENT}{field.name.upper()}"
        text = os.environ.get(variable, "").strip()
        if not text:
            continue
        try:
            settings = settings.changed(**{field.name: read_setting(text, str(field.type))})
        except ConfigError as error:
            raise ConfigError(error.reason, key=variable) from None
    return settings


def read_setting(text: str, annotation: str) -> Any:
    """A setting's value as it stands in the environment; the text itself where it is not of that type."""
    if annotation == "bool":
        return _TRUTHS.get(text.lower(), text)
    if annotation.endswith("None") and text.lower() == "none":
        return None
    for kind in (int, float):
        if kind.__name__ in annotation:
            try:
                return kind(text)
            except ValueError:
                continue
    return text


def check_choice(key: str, value: object, known: tuple[str, ...]) -> None:
    """Raises ConfigError for *key* if it is none of those."""
    if value not in known:
        raise ConfigError(f"{value!r} is unknown; choose one of {', '.join(known)}", key=key)


def check_at_least(key: str, value: object, least: int) -> None:
    """Raises ConfigError for *key* if it is no integer, or a smaller one."""
    if type(value) is not int or value < least:
        raise ConfigError(f"must be an integer of at least {least}, not {value!r}", key=key)


def _unpriced(value: object) -> None:
    if isinstance(value, str) and value.startswith("price_as:") and value.removeprefix("price_as:").strip():
        return
    if value not in UNPRICED:
        raise ConfigError(f"{value!r} is unknown; choose reject, tokens_only or price_as:<model>", key="unpriced")
