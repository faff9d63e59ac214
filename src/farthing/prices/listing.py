"""The public price table, read out: which models have a price that can be used, and what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from .rates import Rates
from .table import Listed, load


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """
    One model of one provider, with its rates for a small call in USD per million tokens. ``reason`` says why there is
    none that can be used; the rates are None then.
    """

    provider: str
    model: str
    input: Decimal | None
    cached: Decimal | None
    output: Decimal | None
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: decimals as strings."""
        rates = {kind: getattr(self, kind) for kind in ("input", "cached", "output")}
        per_million = {kind: None if usd is None else f"{usd:f}" for kind, usd in rates.items()}
        return {"provider": self.provider, "model": self.model, "usd_per_million": per_million, "reason": self.reason}


def list_prices(*, provider: str | None = None, pattern: str | None = None, at_ms: int) -> Iterator[ListedPrice]:
    """
    The rows of the table at a time (milliseconds since the epoch), in its order.

    *pattern* is a part of the model's name, or a whole one with ``*`` and ``?``; *provider* a part of the provider's.
    """
    table = load()
    wanted = (pattern or "").strip().lower()
    wild = wanted if any(sign in wanted for sign in "*?[") else f"*{wanted}*"
    for of in table.snapshot.providers:
        if provider is not None and provider.strip().lower() not in of.id.lower():
            continue
        for info in of.models:
            if not fnmatchcase(info.id.lower(), wild):
                continue
            rates = table.rates(Listed(of, info), at_ms)
            yield _listed(of.id, info.id, rates)


def _listed(provider: str, model: str, rates: Rates | str) -> ListedPrice:
    if isinstance(rates, str):
        return ListedPrice(provider, model, None, None, None, rates)
    return ListedPrice(
        provider,
        model,
        rates.usd_per_million("input"),
        rates.usd_per_million("cached"),
        rates.usd_per_million("output"),
        None,
    )
