"""
Decisions: allowed, or denied with the evidence.

Which budget, its limit, spent, held, asked, when it resets, and one thing to do about it.

Inside, a denial is a value; only the doors raise it. Amounts are integers, except in USD, where they are Decimals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from .balances import bare
from .money import format_dollars, usd_from_nano
from .plan import Line, LineResult
from .window import datetime_from_ms


class FailedLine(NamedTuple):
    """One budget's word against a call, with the figures it saw at that instant, in its own unit."""

    budget: str
    scope: dict[str, str]
    unit: str
    limit: int | Decimal
    spent: int | Decimal
    held: int | Decimal
    suspect: int | Decimal
    asked: int | Decimal
    remaining: int | Decimal
    overrun: int | Decimal
    on_exceed: str
    per: str
    """Over which window: ``month Europe/Berlin``, ``request``."""
    resets_at: datetime | None
    retry_after_seconds: float | None
    remedy: str

    def figures_text(self) -> str:
        """Whose limit it is, and the figures in its unit: one or two sentences without the remedy."""
        scope = "".join(f" {name}={value}" for name, value in self.scope.items())
        return f"budget {self.budget!r}{' for' if scope else ''}{scope}: {self.amounts_text()}"

    def amounts_text(self) -> str:
        """The figures alone: ``limit $5.00, spent $4.98, held $0.00, asked $0.03; $0.02 remain.``"""
        said: Callable[[Any], str] = format_dollars if self.unit == "usd" else partial(_counted, self.unit)
        text = f"limit {said(self.limit)}"
        if self.unit == "concurrency":
            return f"{text}, {self.held:,} in flight."
        text += f", spent {said(self.spent)}, held {said(self.held)}"
        if self.suspect:
            text += f", suspect {said(self.suspect)}"
        text += f", asked {said(self.asked)}; {said(self.remaining)} remain."
        if self.resets_at is not None:
            text += f" Resets at {self.resets_at:%Y-%m-%d %H:%M:%S} UTC."
        return text

    def to_dict(self) -> dict[str, Any]:
        """JSON types: USD as a decimal string, instants as ISO 8601."""
        return {**self._asdict(), **_written(self)}


class Decision(NamedTuple):
    """
    What farthing decided about one call. Denied: the fields are those of the tightest failing line, and ``failed``
    has all of them, tightest first. ``retry_after_seconds`` alone looks at all: until the last of them lets the call
    pass, None where time alone will not bring one of them to it.
    """

    allowed: bool
    budget: str | None
    scope: dict[str, str]
    unit: str = "tokens"
    limit: int | Decimal = 0
    spent: int | Decimal = 0
    held: int | Decimal = 0
    suspect: int | Decimal = 0
    asked: int | Decimal = 0
    remaining: int | Decimal = 0
    overrun: int | Decimal = 0
    resets_at: datetime | None = None
    retry_after_seconds: float | None = None
    remedy: str = ""
    failed: tuple[FailedLine, ...] = ()

    def message(self) -> str:
        """One paragraph for an incident channel: who, which unit, the figures in it, when it resets, what to do."""
        if self.allowed or not self.failed:
            return self.remedy or ("allowed" if self.allowed else "denied")
        first = self.failed[0]
        text = f"{first.figures_text()} {first.remedy}"
        if len(self.failed) > 1:
            others = ", ".join(f"{line.budget!r} ({line.unit})" for line in self.failed[1:])
            text += f" Also past its limit: {others}."
        return text

    def with_remedy(self, remedy: str) -> Decision:
        """The same, with another thing to do about its tightest line."""
        first, *others = self.failed
        return self._replace(remedy=remedy, failed=(first._replace(remedy=remedy), *others))

    def to_dict(self) -> dict[str, Any]:
        """JSON types, with every failing line under ``failed``."""
        lines = [line.to_dict() for line in self.failed]
        written = lines[0] if lines else _written(self)
        return {**self._asdict(), **dict(zip(_WRITTEN, _the_written(written), strict=True)), "failed": lines}


_UNIT_NAMES = {
    "tokens": ("token", "tokens"),
    "requests": ("request", "requests"),
    "concurrency": ("call at once", "calls at once"),
}
_AMOUNTS = ("limit", "spent", "held", "suspect", "asked", "remaining", "overrun")
_amounts = attrgetter(*_AMOUNTS)
_FIGURES = ("budget", "scope", "unit", *_AMOUNTS)
"""With these a line begins, and so does a decision behind its first field."""
_WRITTEN = (*_AMOUNTS, "resets_at")
_the_written = itemgetter(*_WRITTEN)
ALLOWED = Decision(allowed=True, budget=None, scope={})


def denial(failed: tuple[LineResult, ...], *, now_ms: int) -> Decision:
    """The decision for these failing lines."""
    ordered = sorted(failed, key=room_for_output) if len(failed) > 1 else failed
    lines = tuple(line_figures(result, now_ms) for result in ordered)
    first = lines[0]
    figures = first[: len(_FIGURES)]
    return bare(Decision, (False, *figures, first.resets_at, _all_pass_after(lines), first.remedy, lines))


def _all_pass_after(lines: tuple[FailedLine, ...]) -> float | None:
    waits = [line.retry_after_seconds for line in lines if line.retry_after_seconds is not None]
    return max(waits) if len(waits) == len(lines) else None


def refusal(*, budget: str, remedy: str) -> Decision:
    """A denial that no figure explains: of a request without a ceiling, or of an account that a fork inherited."""
    return Decision(allowed=False, budget=budget, scope={}, remedy=remedy)


def room_for_output(result: LineResult) -> tuple[int, int]:
    """How tight a line is: the output tokens it would still allow, which compares lines of different units."""
    line = result.line
    room = line.ceiling - result.balance.total
    base, slope, den = result.formula
    if line.frozen:
        return (0, 0)
    if not slope:
        return (1, room)
    return (2, (room * den - base) // slope)


def line_figures(result: LineResult, now_ms: int) -> FailedLine:
    """What one line saw, in its own unit. Of a line that holds, the ``remedy`` means nothing."""
    line, balance = result.line, result.balance
    opens_ms = resets_ms(result, now_ms)
    # Grants end with their window, so what fits then is what fits under the limit itself.
    limit_then = line.budget.limit(line.unit)
    passes_then = opens_ms is not None and not line.frozen and limit_then is not None and result.needed <= limit_then
    retry_after = (opens_ms - now_ms) / 1000 if opens_ms is not None and passes_then else None
    remaining = line.ceiling - balance.total
    amounts: list[Any] = [line.ceiling, *balance, result.asked, max(0, remaining), max(0, -remaining)]
    if line.unit == "usd":
        amounts = list(map(usd_from_nano, amounts))
    fields = (
        line.budget.title,
        {name: value for name, value in line.scope if value is not None},
        line.unit,
        *amounts,
        line.budget.on_exceed,
        str(line.budget.window),
        None if opens_ms is None else datetime_from_ms(opens_ms),
        retry_after,
        _remedy(line, balance.settled, balance.suspect, result.needed, opens_ms),
    )
    return bare(FailedLine, fields)


def resets_ms(result: LineResult, now_ms: int) -> int | None:
    """Calendar: the window's end. Rolling: when enough of the oldest buckets will have left for this call to fit."""
    line = result.line
    window = line.budget.window
    if window.kind in ("lifetime", "request"):
        return None
    if window.kind != "rolling" or line.starts_ms is None:
        return line.ends_ms
    excess = result.balance.total + result.needed - line.ceiling
    leaves_ms = line.starts_ms + len(line.keys) * window.bucket_ms
    for balance in result.balances:
        excess -= balance.total
        if excess <= 0 and leaves_ms > now_ms:
            return leaves_ms
        leaves_ms += window.bucket_ms
    return leaves_ms


def _remedy(line: Line, settled: int, suspect: int, needed: int, resets_ms: int | None) -> str:
    """One thing to do about it."""
    name = line.budget.title
    if line.frozen:
        return f"It is frozen: unfreeze budget {name!r} to allow calls again."
    if not line.ceiling:
        return f"Its limit is 0, which denies every call: raise the limit of budget {name!r} to allow some."
    if line.unit in ("tokens", "usd") and needed > line.ceiling:
        return (
            "This call alone asks for more than the whole limit: shorten the prompt, lower its output ceiling or "
            "thinking budget, or raise the limit."
        )
    if line.unit == "concurrency":
        return "Wait until a call in flight ends, or raise the limit."
    if line.budget.on_exceed != "raise" and settled + suspect + needed <= line.ceiling:
        return "It would fit once calls in flight have settled: try again then, or raise the limit."
    if suspect and settled + needed <= line.ceiling:
        if line.budget.anonymous:
            return "Calls with an unknown outcome are in its way: they may have been billed, so they stay counted."
        return "Calls with an unknown outcome are in its way: look at them with `farthing holds list`."
    if resets_ms is not None:
        return "Wait for the window to reset, or grant more for now."
    if line.budget.anonymous:
        return "This unit of work has used its budget: give it a larger one if it is meant to go on."
    return f"Grant more, or raise the limit of budget {name!r}."


def _counted(unit: str, amount: int) -> str:
    one, many = _UNIT_NAMES[unit]
    return f"{amount:,} {one if amount == 1 else many}"


def _written(of: FailedLine | Decision) -> dict[str, Any]:
    """Those of its fields that are of no JSON type, in one."""
    amounts: Sequence[Any] = _amounts(of)
    if of.unit == "usd":
        amounts = list(map("{:f}".format, amounts))
    resets_at = None if of.resets_at is None else of.resets_at.isoformat()
    return dict(zip(_WRITTEN, (*amounts, resets_at), strict=True))
