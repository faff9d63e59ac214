"""A user's own prices: checked when they are registered, and above every table."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction

from ..kernel.usage import KINDS
from .rates import Rates, Tier, make_rates

_PER = {"1M": 1_000_000, "1K": 1_000, "token": 1}

Usd = Decimal | int | float


@dataclass(frozen=True, slots=True)
class Registered:
    """One registration: an exact name, or a pattern with ``* ? [`` in it. Names are compared in lower case."""

    pattern: str
    rates: Rates

    @property
    def is_pattern(self) -> bool:
        return any(sign in self.pattern for sign in "*?[")

    def matches(self, name: str) -> bool:
        return fnmatchcase(name, self.pattern) if self.is_pattern else name == self.pattern


def registered(
    model: str,
    *,
    input: Usd,  # noqa: A002 - the word that users know
    output: Usd,
    cached: Usd | None = None,
    cache_write: Usd | None = None,
    cache_write_1h: Usd | None = None,
    per: str = "1M",
) -> Registered:
    """
    A user's price, in USD per million tokens (or ``per="1K"``, ``"token"``). Zero is honoured: it says "free".

    What is not given: ``cached`` costs as much as input; ``cache_write`` as input (Claude: 1.25 times input);
    ``cache_write_1h`` as ``cache_write`` (Claude: twice input). Raises ValueError naming the field.
    """
    if not isinstance(model, str) or not model.strip():
        raise ValueError(f"model must be a name or a pattern, not {model!r}")
    if per not in _PER:
        raise ValueError(f"per must be one of {', '.join(map(repr, _PER))}, not {per!r}")
    name = model.strip().lower()
    claude = "claude" in name
    size = _PER[per]
    rates = {"input": _rate(input, size, field="input"), "output": _rate(output, size, field="output")}
    given = {"cached": cached, "cache_write": cache_write, "cache_write_1h": cache_write_1h}
    rates.update({kind: _rate(usd, size, field=kind) for kind, usd in given.items() if usd is not None})
    rates.setdefault("cached", rates["input"])
    rates.setdefault("cache_write", rates["input"] * Fraction(5, 4) if claude else rates["input"])
    rates.setdefault("cache_write_1h", rates["input"] * 2 if claude else rates["cache_write"])
    rates["cached_audio"] = rates["cached"]
    for kind in KINDS:
        rates.setdefault(kind, rates["input"] if kind.startswith("input") else rates["output"])
    stated = {"input": input, "output": output, **{kind: usd for kind, usd in given.items() if usd is not None}}
    version = f"registered {name} " + " ".join(f"{kind}={usd}" for kind, usd in stated.items()) + f" USD per {per}"
    made = make_rates(
        provider="registered",
        model=name,
        version=version,
        standard=[Tier(-1, rates)],
        marked_writes=claude,
    )
    return Registered(name, made)


def _rate(usd: Usd, per: int, *, field: str) -> Fraction:
    """Nano-dollars per token, exact. A float is read through its shortest text, as the user wrote it."""
    if isinstance(usd, bool) or not isinstance(usd, (int, float, Decimal)):
        raise ValueError(f"{field} must be a number of US dollars, not {usd!r}")
    amount = Decimal(str(usd)) if isinstance(usd, float) else Decimal(usd)
    if not amount.is_finite():
        raise ValueError(f"{field} must be finite, not {usd!r}")
    if amount < 0:
        raise ValueError(f"{field} must be a number of at least 0 US dollars, not {usd}")
    return Fraction(amount) * 1_000_000_000 / per
