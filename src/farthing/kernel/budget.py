"""
Budgets: a limit in one or more units, for a scope, over a window, with what happens when it would be passed.

Everything is validated when the budget is made: a typo, a negative, NaN, text for a number, a downgrade without a map
is a ValueError that names the field, never a silent no-op.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

from .balances import UNITS
from .lending import Lending
from .money import count_of, format_usd, nano_from_usd
from .scope import OWN_KEYS, check_tags, check_unicode
from .window import Window, parse_window

MODES = ("block", "clamp", "downgrade", "wait", "break", "truncate", "raise", "warn")
"""What ``on_exceed`` may say, beside a callable (kept as ``callable``: its code lives with who names the budget)."""
HARD_MODES = ("block", "clamp", "downgrade", "wait", "break", "truncate", "callable")
"""Modes under which no hold is ever admitted that would pass the limit."""
UNCAPPED = ("reject", "inject", "watch")
"""What happens to a request without an output ceiling of its own, strictest first."""
OPEN_BOUND = ("reject", "context_window", "overrun")
"""What happens to a request whose input has no bound on this side, strictest first."""
ALERT_WHOLE = 10_000
"""Alerts are kept in ten-thousandths of the limit: this is all of it."""
ALERT_UNITS = ("usd", "tokens", "requests")
"""What adds up to a threshold. Calls in flight come and go."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget's terms. Made by :func:`make_budget`; limits of None are not counted against."""

    name: str
    tokens: int | None = None
    usd_nano: int | None = None
    requests: int | None = None
    concurrency: int | None = None
    window: Window = Window("lifetime")
    scope: tuple[tuple[str, str], ...] = ()
    each: tuple[str, ...] = ()
    on_exceed: str = "block"
    downgrade: tuple[tuple[str, str], ...] = ()
    description: str | None = None
    min_output_tokens: int = 16
    default_output_tokens: int | None = None
    wait_seconds: float = 30
    uncapped: str = "inject"
    open_bound: str = "context_window"
    alerts: tuple[int, ...] = ()
    """What is said once for each account and window, in ten-thousandths of the limit, ascending."""
    standing: bool = False
    """Binds every call that its scope matches, not only those made inside its ``with``."""
    anonymous: bool = False
    """One unit of work, in memory only; ``name`` is then an id, and :attr:`label` what people see."""
    label: str = ""
    defined_by: str | None = None
    """The configuration file (or other source) that owns these terms: they are changed there, and nowhere else."""
    lending: Lending | None = None
    """An agent's terms for lending to others; None: this budget takes no part in it."""

    @property
    def hard(self) -> bool:
        """Whether this budget may refuse a call before it is sent."""
        return self.on_exceed in HARD_MODES

    @property
    def title(self) -> str:
        """What a message calls it."""
        return self.label or self.name

    def limit(self, unit: str) -> int | None:
        """The limit in this unit (nano-dollars for ``usd``), or None."""
        match unit:
            case "tokens":
                return self.tokens
            case "usd":
                return self.usd_nano
            case "requests":
                return self.requests
            case "concurrency":
                return self.concurrency
        raise ValueError(f"unknown unit {unit!r}")

    def terms_text(self) -> str:
        """The limits as people write them: ``$5.00 and 1,000 tokens per day``."""
        parts = []
        if self.usd_nano is not None:
            parts.append(format_usd(self.usd_nano))
        for unit in ("tokens", "requests"):
            limit = self.limit(unit)
            if limit is not None:
                parts.append(f"{limit:,} {unit.removesuffix('s') if limit == 1 else unit}")
        if self.concurrency is not None:
            parts.append(f"{self.concurrency:,} at once")
        per = "" if self.window.kind == "lifetime" else f" per {self.window}"
        return " and ".join(parts) + per

    def to_dict(self) -> dict[str, Any]:
        """As a store keeps it: JSON types, defaults included, so that a later default changes no existing budget."""
        kept = {field.name: getattr(self, field.name) for field in fields(self)}
        kept["window"] = str(self.window)
        kept["scope"] = dict(self.scope)
        kept["each"] = list(self.each)
        kept["downgrade"] = dict(self.downgrade)
        kept["alerts"] = list(self.alerts)
        kept["lending"] = None if self.lending is None else self.lending.to_dict()
        return kept

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Budget:
        """The inverse of :meth:`to_dict`."""
        known = dict(kept)
        known["window"] = parse_window(known["window"])
        known["scope"] = tuple(sorted(known["scope"].items()))
        known["each"] = tuple(known["each"])
        known["downgrade"] = tuple(sorted(known["downgrade"].items()))
        known["alerts"] = tuple(known.get("alerts", ()))
        lending = known.get("lending")
        known["lending"] = None if lending is None else Lending.from_dict(lending)
        return cls(**known)


def make_budget(
    name: str | None = None,
    *,
    usd: Decimal | int | float | None = None,
    tokens: int | None = None,
    requests: int | None = None,
    concurrency: int | None = None,
    per: str | None = None,
    on_exceed: str | Callable[..., Any] = "block",
    downgrade: Mapping[str, str] | None = None,
    scope: Mapping[str, object] | None = None,
    each: tuple[str, ...] | list[str] = (),
    description: str | None = None,
    min_output_tokens: int = 16,
    default_output_tokens: int | None = None,
    wait_seconds: float = 30,
    uncapped: str = "inject",
    open_bound: str = "context_window",
    alerts: Iterable[Decimal | int | float] = (),
    standing: bool = False,
) -> Budget:
    """
    Validate a budget's terms as a person writes them. Without a name it is anonymous: the caller gives it one.

    Raises ValueError naming the field.
    """
    if name is not None and not isinstance(name, str):
        if callable(name):
            raise ValueError("a budget needs a limit before it decorates a function: write @budget(usd=0.50)")
        raise ValueError(f"name must be text, not {name!r}; limits are given by keyword, such as budget(usd=0.50)")
    if name is not None and (not name.strip() or len(name) > 200):
        raise ValueError(f"name must be non-empty text of at most 200 characters, not {name!r}")
    if name is not None:
        check_unicode(name, field="name")
    for field, tags in (("scope", scope), ("each", each)):
        _check_own(tags or (), field=field)
    budget = Budget(
        name=name or "",
        tokens=_count(tokens, field="tokens"),
        usd_nano=None if usd is None else nano_from_usd(usd, field="usd"),
        requests=_count(requests, field="requests"),
        concurrency=_count(concurrency, field="concurrency"),
        window=parse_window(per),
        scope=tuple(sorted(check_tags({} if scope is None else scope, field="scope").items())),
        each=_names(each),
        on_exceed="callable" if callable(on_exceed) else _choice(on_exceed, MODES, field="on_exceed"),
        downgrade=_downgrade_map(downgrade, on_exceed),
        description=_text(description, field="description"),
        min_output_tokens=_positive(min_output_tokens, field="min_output_tokens"),
        default_output_tokens=None
        if default_output_tokens is None
        else _positive(default_output_tokens, field="default_output_tokens"),
        wait_seconds=_seconds(wait_seconds, field="wait_seconds"),
        uncapped=_choice(uncapped, UNCAPPED, field="uncapped"),
        open_bound=_choice(open_bound, OPEN_BOUND, field="open_bound"),
        alerts=_thresholds(alerts),
        standing=_flag(standing, field="standing"),
        anonymous=name is None,
    )
    _check_together(budget)
    return budget


def unit_of_work(budget: Budget, *, unit_id: str, label: str) -> Budget:
    """One fresh unit of an anonymous budget: an account of its own."""
    return replace(budget, name=unit_id, label=label)


def _check_together(budget: Budget) -> None:
    if all(budget.limit(unit) is None for unit in UNITS):
        raise ValueError("a budget needs a limit: give usd, tokens, requests or concurrency")
    if budget.on_exceed in ("clamp", "break") and budget.tokens is None and budget.usd_nano is None:
        raise ValueError(f"on_exceed={budget.on_exceed!r} shrinks outputs, so it needs a limit in usd or tokens")
    if budget.concurrency is not None and budget.on_exceed == "raise":
        raise ValueError(
            "on_exceed='raise' looks at what is spent, and concurrency counts calls in flight: it would never raise"
        )
    if budget.window.kind == "request" and budget.on_exceed == "raise":
        raise ValueError(
            "per='request' is checked before a call and on_exceed='raise' after it: they do not go together"
        )
    if budget.window.kind == "request" and budget.concurrency is not None:
        raise ValueError("concurrency: per='request' looks at one call alone, so it cannot count calls in flight")
    if budget.window.kind not in ("lifetime", "request") and budget.concurrency is not None:
        raise ValueError(
            f"concurrency counts calls in flight now, so it has no window per={str(budget.window)!r}; "
            "give it a budget of its own"
        )
    if budget.alerts and budget.window.kind == "request":
        raise ValueError("alerts: per='request' looks at one call alone, so nothing adds up to a part of the limit")
    if budget.alerts and all(budget.limit(unit) is None for unit in ALERT_UNITS):
        raise ValueError("alerts are parts of what is spent, so they need a limit in usd, tokens or requests")
    if budget.anonymous and (budget.scope or budget.each):
        raise ValueError("scope and each choose among the accounts of a named budget: give the budget a name")
    if budget.anonymous and budget.window.kind not in ("lifetime", "request"):
        raise ValueError(
            f"per={str(budget.window)!r} needs a name: an anonymous budget is one unit of work and starts fresh each "
            "time, so it would never see the rest of its window"
        )


def _check_own(tags: object, *, field: str) -> None:
    if not isinstance(tags, Collection):
        return  # what else it may be is said where it is read
    for name in OWN_KEYS:
        if name in tags and name not in ("model", "provider"):
            remedy = "" if name == "budget" else f": give per={name!r} for a budget per {name}"
            raise ValueError(f"{field}: {name!r} is a key of reports, not a tag that calls carry{remedy}")


def _count(value: object, *, field: str) -> int | None:
    return None if value is None else count_of(value, field=field)


def _positive(value: object, *, field: str) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{field} must be an integer of at least 1, not {value!r}")
    return value


def _flag(value: object, *, field: str) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{field} must be True or False, not {value!r}")
    return value


def _seconds(value: object, *, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 86_400:
        raise ValueError(f"{field} must be a number of seconds from 0 to 86400, not {value!r}")
    return value


def _choice(value: object, known: tuple[str, ...], *, field: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{field}={value!r} is unknown; choose one of {', '.join(known)}")
    return value


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (tuple, list)):
        raise ValueError(f"each must be a list of tag names, not {value!r}")
    for name in value:
        if not isinstance(name, str) or not name:
            raise ValueError(f"each: a tag's name must be non-empty text, not {name!r}")
        check_unicode(name, field="each")
    return tuple(value)


def _thresholds(value: object) -> tuple[int, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError(f"alerts must be parts of the limit such as [0.5, 0.8, 1.0], not {value!r}")
    found = set()
    for part in value:
        if isinstance(part, bool) or not isinstance(part, (int, float, Decimal)):
            raise ValueError(f"alerts: {part!r} is not a part of the limit such as 0.8")
        scaled = Decimal(str(part)) * ALERT_WHOLE
        if not scaled.is_finite() or not 0 < scaled <= 10 * ALERT_WHOLE:
            raise ValueError(f"alerts: {part} must be above 0 and at most 10; 0.8 is 80 % of the limit")
        if scaled != int(scaled):
            raise ValueError(f"alerts: {part!r} has more than four decimals")
        found.add(int(scaled))
    return tuple(sorted(found))


def _text(value: object, *, field: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{field} must be text, not {value!r}")
    return value


def _downgrade_map(value: object, on_exceed: object) -> tuple[tuple[str, str], ...]:
    if value is None:
        if on_exceed == "downgrade":
            raise ValueError("downgrade: on_exceed='downgrade' needs a map such as {'gpt-4o': 'gpt-4o-mini'}")
        return ()
    if on_exceed != "downgrade":
        raise ValueError(f"downgrade is only used with on_exceed='downgrade', not {on_exceed!r}")
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"downgrade must be a non-empty map from model to cheaper model, not {value!r}")
    for dear, cheap in value.items():
        if not isinstance(dear, str) or not isinstance(cheap, str) or not dear or not cheap:
            raise ValueError(f"downgrade: {dear!r} → {cheap!r} is not a pair of model names")
    for start in value:
        seen, model = {start}, start
        while model in value:
            model = value[model]
            if model in seen:
                raise ValueError(f"downgrade: the chain from {start!r} comes back to {model!r}")
            seen.add(model)
    return tuple(sorted(value.items()))
