"""
Alerts: how much of a limit is spent, said once for each account, window and threshold, over all processes.

What a call spent is looked at after the call, by the housekeeper where the ledger is durable: an alert costs its call
nothing. *Spent* is what is settled or suspect; what calls in flight hold is not gone yet. The threshold 1.0 is also
passed when the first call is denied, for a hard limit is seldom reached exactly. Who says it first is decided by the
ledger; a limit that was changed or raised is another one, with thresholds of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

from ..errors import StoreUnavailable
from ..kernel.balances import Balance
from ..kernel.budget import ALERT_UNITS, ALERT_WHOLE
from ..kernel.money import format_usd, usd_from_nano
from ..kernel.plan import Account, Formula, Line, LineResult, spent_line
from ..kernel.scope import account_key
from ..kernel.window import datetime_from_ms
from .events import ALERT, BudgetEvent
from .ledgers import Ledger

if TYPE_CHECKING:
    from .runtime import Runtime

log = logging.getLogger("farthing")
SAID_MAX = 4_096


class Alerts:
    """Belongs to one runtime. Any thread may use it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiting: dict[str, tuple[Ledger, Account]] = {}
        self._said: dict[str, None] = {}
        """What need not be asked of the ledger again."""

    def spent_on(self, ledger: Ledger, accounts: Iterable[Account]) -> None:
        """A call has ended on these accounts. In memory they are looked at now, on a durable ledger within a second."""
        for account in accounts:
            if not account.budget.alerts:
                continue
            if ledger.store.durable:
                self._waiting[account.key] = (ledger, account)
                self._runtime.housekeeper.start()
            else:
                self._look(ledger, account)

    def denied(self, failed: Iterable[LineResult]) -> None:
        """These lines denied a call: where a budget tells when all is spent, it is told now."""
        for result in failed:
            if ALERT_WHOLE in result.line.budget.alerts and result.line.unit in ALERT_UNITS:
                ledger = self._runtime.memory if result.line.budget.anonymous else self._runtime.main
                self._say(ledger, result, denied=True)

    def look(self) -> None:
        """Look at every account that calls ended on since the last time."""
        while self._waiting:
            try:
                _, (ledger, account) = self._waiting.popitem()
            except KeyError:
                return
            self._look(ledger, account)

    def forget(self) -> None:
        """After a fork, and with another ledger: what was spent elsewhere is told there, and this one knows its own."""
        self._waiting.clear()
        self._said.clear()

    def _look(self, ledger: Ledger, account: Account) -> None:
        for unit, ceiling, keys in account.limits:
            if unit not in ALERT_UNITS:
                continue
            try:
                balances = ledger.store.balances(keys).result()
            except StoreUnavailable as error:
                log.warning("budget %r: how much is spent is unknown: %s", account.budget.title, error)
                return
            line = spent_line(account, unit, ceiling, keys)
            spent = tuple(balances[key].of(unit) for key in keys)
            self._say(ledger, LineResult(line, spent, 0, Formula(0)), denied=False)

    def _say(self, ledger: Ledger, seen: LineResult, *, denied: bool) -> None:
        """Say the highest threshold that is passed and was not said; those below it count as said with it."""
        line, balance = seen.line, seen.balance
        spent = balance.settled + balance.suspect
        passed = {part for part in line.budget.alerts if line.ceiling and spent * ALERT_WHOLE >= part * line.ceiling}
        if denied:
            passed.add(ALERT_WHOLE)
        if not passed:
            return
        now_ms = ledger.store.now()
        key = f"{_account_key(line, now_ms)}|{line.unit}|{line.ceiling}"
        try:
            # All of them are asked for, the highest last: two processes that pass two at once say each at most once.
            fresh = [part for part in sorted(passed) if self._first(ledger, f"{key}|{part}", line.ends_ms)]
        except StoreUnavailable as error:
            log.warning("budget %r: whether its alert was said before is unknown: %s", line.budget.title, error)
            return
        if fresh and fresh[-1] == max(passed):
            event = _event(line, balance, fresh[-1], now_ms)
            log.warning(event.reason)
            if self._runtime.events.subscribers:
                self._runtime.events.tell(event)

    def _first(self, ledger: Ledger, key: str, ends_ms: int | None) -> bool:
        if key in self._said:
            return False
        first = ledger.store.alert_once(key, ends_ms=ends_ms).result()
        while len(self._said) >= SAID_MAX:
            self._said.pop(next(iter(self._said)), None)
        self._said[key] = None
        return first


def _event(line: Line, balance: Balance, part: int, now_ms: int) -> BudgetEvent:
    budget, unit = line.budget, line.unit
    spent = balance.settled + balance.suspect
    tags = {name: value for name, value in line.scope if value is not None}
    whom = " for " + " ".join(f"{name}={value}" for name, value in tags.items()) if tags else ""
    reached = spent * ALERT_WHOLE >= part * line.ceiling
    what = f"{_percent(part)} of its limit is spent" if reached else "it denies calls that do not fit any more"
    of = _text(unit, line.ceiling) + ("" if budget.window.kind == "lifetime" else f" per {budget.window}")
    resets = ""
    if line.ends_ms is not None and budget.window.kind != "rolling":
        resets = f" Resets at {datetime_from_ms(line.ends_ms):%Y-%m-%d %H:%M:%S} UTC."
    amount = usd_from_nano if unit == "usd" else int
    return BudgetEvent(
        action=ALERT,
        name=budget.title,
        at=datetime_from_ms(now_ms),
        reason=f"budget {budget.title!r}{whom}: {what}: {_text(unit, spent)} of {of}.{resets}",
        description=budget.description,
        scope=tags,
        unit=unit,
        limit=amount(line.ceiling),
        spent=amount(balance.settled),
        held=amount(balance.held),
        suspect=amount(balance.suspect),
        remaining=amount(max(0, line.ceiling - balance.total)),
        threshold=Decimal(part) / ALERT_WHOLE,
    )


def _account_key(line: Line, now_ms: int) -> str:
    """What *once per window* means; of a rolling one: once in any stretch of its length, counted from the epoch."""
    window, start_ms = line.budget.window, line.starts_ms
    if window.kind == "rolling":
        start_ms = now_ms - now_ms % window.length_ms
    return account_key(line.budget.name, dict(line.scope), start_ms, str(window))


def _percent(part: int) -> str:
    return f"{Decimal(part) / 100:f} %"


def _text(unit: str, amount: int) -> str:
    return format_usd(amount) if unit == "usd" else f"{amount:,} {unit}"
