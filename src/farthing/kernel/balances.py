"""
Balances: what an account has settled, held and suspect, in every unit. One row of a ledger each; pure arithmetic.

A row has twelve integers: three states of four units. A change is a row too, of differences, so that whatever becomes
of a hold is one addition for each of its accounts::

    place      + held(amounts)
    settle     − held(amounts) + settled(used)
    lost       − held(amounts) + suspect(amounts without what is in flight)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from operator import add, itemgetter
from typing import NamedTuple

UNITS = ("tokens", "usd", "requests", "concurrency")
"""What a budget counts. Amounts are integers: tokens, nano-dollars, requests, calls in flight."""

Amounts = tuple[int, int, int, int]
"""An amount of each unit, in the order of ``UNITS``."""

NONE: Amounts = (0, 0, 0, 0)
AT = {unit: place for place, unit in enumerate(UNITS)}
"""Where a unit stands in amounts, and in each third of a row."""
COUNTED = {unit: itemgetter(at, at + 4, at + 8) for unit, at in AT.items()}
"""By unit, what a limit is compared with the sum of: settled, held and suspect."""
SPENT = {unit: itemgetter(at, at + 8) for unit, at in AT.items()}
"""The same without what calls in flight hold."""

bare = tuple.__new__
"""``bare(Kind, fields)`` makes a named tuple in half the time of ``Kind(*fields)``, for the paths of every call."""


class Balance(NamedTuple):
    """One unit of a row. ``settled`` only grows (corrections aside); none is ever negative."""

    settled: int = 0
    held: int = 0
    suspect: int = 0

    @property
    def total(self) -> int:
        return self.settled + self.held + self.suspect


class Balances(NamedTuple):
    """A row, or a change of one. Calls in flight (``concurrency``) are only ever held."""

    settled_tokens: int = 0
    settled_usd: int = 0
    settled_requests: int = 0
    settled_concurrency: int = 0
    held_tokens: int = 0
    held_usd: int = 0
    held_requests: int = 0
    held_concurrency: int = 0
    suspect_tokens: int = 0
    suspect_usd: int = 0
    suspect_requests: int = 0
    suspect_concurrency: int = 0

    def of(self, unit: str) -> Balance:
        """What it has in one unit."""
        return bare(Balance, COUNTED[unit](self))

    def plus(self, change: Balances) -> Balances:
        """The row after a change."""
        return bare(Balances, map(add, self, change))

    def only(self, units: Collection[str]) -> Balances:
        """The change in these units alone."""
        return bare(Balances, [amount if unit in units else 0 for amount, unit in zip(self, UNITS * 3, strict=True)])

    @property
    def settled(self) -> Amounts:
        """What is settled, by unit."""
        tokens, usd, requests, concurrency = self[:4]
        return tokens, usd, requests, concurrency


ZERO = Balances()


def total(rows: Iterable[Balances]) -> Balances:
    """The sum of rows: what an account has whose window is made of several."""
    found = ZERO
    for row in rows:
        found = found.plus(row)
    return found


def change(settled: Amounts = NONE, held: Amounts = NONE, suspect: Amounts = NONE) -> Balances:
    """A change of a row."""
    return bare(Balances, settled + held + suspect)


def change_of(unit: str, settled: int = 0, held: int = 0, suspect: int = 0) -> Balances:
    """A change of a row in one unit."""
    return change(amount_of(unit, settled), amount_of(unit, held), amount_of(unit, suspect))


def amount_of(unit: str, amount: int) -> Amounts:
    """An amount of one unit, and nothing of the others."""
    tokens, usd, requests, concurrency = [amount if of == unit else 0 for of in UNITS]
    return tokens, usd, requests, concurrency


def minus(amounts: Amounts) -> Amounts:
    """The opposite."""
    tokens, usd, requests, concurrency = amounts
    return -tokens, -usd, -requests, -concurrency
