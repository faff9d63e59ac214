"""
Lending between agents: on what terms a budget takes part, and who lends how much to whom.

The agents of a *pool* share what they have. One that is short before a call borrows what is missing, and no more, from
agents of lower or equal priority: the lowest priority first, then whoever has most to spare, then whoever was
registered first. Nobody lends what would take it below its reserve. What the call did not use goes back, last borrowed
first returned. An agent that another one delegated to lends, and never borrows: what it was given is all that it may
spend.

:func:`downhill` is the whole policy; what a loan does to accounts stands in :mod:`.loans`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from heapq import heapify, heappop
from typing import Any, NamedTuple

from .balances import Balances, change_of


@dataclass(frozen=True, slots=True)
class Lending:
    """An agent's terms beside its limits. Who lends is found by ``pool``; ``agent`` is the name that people see."""

    pool: str
    agent: str
    priority: int = 1
    reserve_tokens: int = 0
    """What it never lends, nor what would take it below this."""
    reserve_usd_nano: int = 0
    threshold_ppm: int | None = None
    """The confidence, in millionths, from which on an answer is good enough."""
    parent: str | None = None
    """The agent that it was delegated from: what it leaves goes back there."""
    expires_ms: int | None = None
    closed: bool = False
    """It spends nothing any more. Without a parent, what it left is the pool's: anyone may borrow it."""
    returned: bool = False
    """All that it left is its parent's again."""
    delegation: str = ""
    """Tells its debit apart from any other that was tried for an agent of its name."""

    def reserve(self, unit: str) -> int:
        """The least that stays with it, in the unit's integer. A closed agent keeps nothing for itself."""
        if self.closed:
            return 0
        return self.reserve_tokens if unit == "tokens" else self.reserve_usd_nano

    def ended(self, now_ms: int) -> bool:
        """Whether it is closed, or its time is over."""
        return self.closed or (self.expires_ms is not None and now_ms >= self.expires_ms)

    def lends(self, now_ms: int) -> bool:
        """Whether others may borrow from it. What a delegated agent leaves belongs to its parent."""
        return self.parent is None or not self.ended(now_ms)

    @property
    def borrows(self) -> bool:
        """Whether others may lend to it. A delegated agent spends what it was given, and no more."""
        return self.parent is None

    @property
    def rank(self) -> int:
        """Its priority as a lender: what nobody owns any more is borrowed first."""
        return 0 if self.closed else self.priority

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Lending:
        """The inverse of :meth:`to_dict`."""
        return cls(**kept)


class Donor(NamedTuple):
    """Somebody who may lend, as it stands now. ``spare``: what is left without its reserve, in the unit's integer."""

    name: str
    priority: int
    spare: int


Policy = Callable[[int, int, Iterable[Donor]], list[tuple[Donor, int]]]
"""
Priority of who is short, how much is short, donors → who lends how much, in order.

Donors of one priority come in order of registration; of priorities above those that can cover, there may be none.
"""


def downhill(priority: int, shortfall: int, donors: Iterable[Donor]) -> list[tuple[Donor, int]]:
    """
    Never uphill; lowest priority first, then most to spare, then the order given. Nothing if all together cannot cover.
    """
    if shortfall <= 0:
        return []
    queue = [
        (of, -spare, number, name) for number, (name, of, spare) in enumerate(donors) if spare > 0 and of <= priority
    ]
    heapify(queue)
    shares: list[tuple[Donor, int]] = []
    while queue:
        of, owed, _, name = heappop(queue)
        donor = Donor(name, of, -owed)
        shares.append((donor, min(donor.spare, shortfall)))
        shortfall -= shares[-1][1]
        if not shortfall:
            return shares
    return []


class Loan(NamedTuple):
    """
    A part of one hold that another agent's budget carries: of the hold's amount in this unit, what lies between
    ``above`` and ``above + amount``. So the last loan is the first that an unused rest gives back.
    """

    unit: str
    taker: str
    """The account that is short."""
    donor: str
    """The account that lends."""
    above: int
    amount: int
    most: int
    """What the donor's account may reach by it: its limit without its reserve."""
    why: str

    def part(self, total: int) -> int:
        """What it carries of a hold, or of a cost, of this size."""
        return max(0, min(self.amount, total - self.above))


class Transfer(NamedTuple):
    """What one account gave another for good, with the call that used it (negative in a correction)."""

    unit: str
    donor: str
    taker: str
    amount: int
    why: str

    def changes(self) -> tuple[tuple[str, Balances], ...]:
        """By row, what it adds."""
        return tuple((key, change_of(self.unit, settled=sign * self.amount)) for key, sign in sides(self))


def lent_key(account: str) -> str:
    """The row of what an account has lent; not among those that its limit is compared with."""
    return f"{account}|lent"


def borrowed_key(account: str) -> str:
    """The row of what an account has borrowed."""
    return f"{account}|borrowed"


def account_of(key: str) -> str:
    """The account that a row belongs to: itself, or what it has lent or borrowed."""
    return key.removesuffix("|lent").removesuffix("|borrowed")


def sides(loan: Loan | Transfer) -> tuple[tuple[str, int], ...]:
    """
    The rows that a loan moves, each with its sign: what is borrowed counts on the donor, not on the taker. So both
    are held against their own limits, and every limit stays what it is.
    """
    return _sides(loan.taker, loan.donor)


@lru_cache(maxsize=4_096)
def _sides(taker: str, donor: str) -> tuple[tuple[str, int], ...]:
    return (taker, -1), (borrowed_key(taker), 1), (donor, 1), (lent_key(donor), 1)
