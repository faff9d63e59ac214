"""
Holds and entries: what the ledger keeps.

::

                 ┌── settle ──▶ settled ─┐
    place ─▶ held┼── void ────▶ voided   ├─ (after an automatic end: one late truth) ─▶ corrected
                 └── lost ────▶ suspect ─┘

A **hold** is an authorisation on every account that applies. It resolves exactly once. **Suspect** is a state of a
hold: the call may have been billed, nobody knows; it stays counted. An **entry** is the immutable row of a call's
outcome; a later truth about a suspect call adds one linked correction row, never an edit.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import sub
from typing import NamedTuple

from .balances import NONE, Amounts, Balances, bare, change
from .lending import Loan, Transfer
from .plan import CallFacts, Posting
from .usage import Usage

HELD = "held"
SETTLED = "settled"
VOIDED = "voided"
SUSPECT = "suspect"
DELEGATION = "delegation"
"""The ``dialect`` of a hold for a whole child budget: it lasts until that is closed, whatever becomes of its owner."""
MOVE = "move"
"""The ``dialect`` of a hold under which an allocation is moved by hand."""
ENTRY_KINDS: dict[str | None, str] = {DELEGATION: "transfer", MOVE: "transfer"}
"""What the row of a hold is called that is no call, by its ``dialect``."""
LIVE = (HELD, SUSPECT)
"""States in which a hold's amounts are still counted beside what is settled."""


class Outcome(NamedTuple):
    """
    How a call ended, as the pipeline says it: the amounts to settle and what the entry keeps.

    ``amounts`` has no calls in flight, and no nano-dollars where no price is known.
    """

    amounts: Amounts = NONE
    usage: Usage = Usage()
    cost_nano: int | None = None
    """None where no price is known: never zero for that reason."""
    ending: str = "ok"
    usage_source: str = "provider"
    """``provider``, ``counted`` (from what was delivered) or ``estimate`` (the hold)."""
    model: str | None = None
    """The model that answered, where the provider says it and it differs."""
    note: str | None = None


class Hold(NamedTuple):
    """
    A hold as the store keeps it: on each of its postings' accounts its amounts, what the call asks of each unit for
    ``x``.

    The postings are the same object in every hold on the same accounts.
    """

    id: str
    owner: str
    facts: CallFacts
    postings: tuple[Posting, ...]
    loans: tuple[Loan, ...]
    """The parts of it that other agents' budgets carry."""
    x_want: int
    x_floor: int
    placed_ms: int
    x: int
    amounts: Amounts
    deadline_ms: int
    changed_ms: int
    state: str
    automatic: bool = False
    """Resolved by the sweeper or by hand, not by its call: one late truth is still accepted."""
    outcome: Outcome | None = None
    """What the call itself said, once it has: what a repetition is compared with."""
    entry: int | None = None
    """The number of its latest row."""

    def ended(self, state: str, outcome: Outcome | None, now_ms: int, entry: int | None) -> Hold:
        """The hold after its call's own word."""
        changed = (now_ms, state, False, outcome, entry)
        return bare(Hold, self[:_CHANGED_MS] + changed)

    def shrunk(self, x: int) -> Hold:
        """The hold for fewer output tokens per choice."""
        return self._replace(x=x, amounts=self.facts.amounts(x))

    def estimate(self, x: int | None = None) -> Outcome:
        """The outcome that is assumed while the real one is unknown: all that was held."""
        return estimated(self.facts, self.x if x is None else x)


_CHANGED_MS = Hold._fields.index("changed_ms")
"""From here on is what the end of its call changes."""


def paid(usage: Usage, cost_nano: int | None, *, source: str) -> Outcome:
    """The outcome of a call that used this and cost that (None: no price is known), as *source* says."""
    return Outcome((usage.total_tokens, cost_nano or 0, 1, 0), usage, cost_nano, usage_source=source)


def estimated(facts: CallFacts, x: int) -> Outcome:
    """All that this call may cost with ``x`` output tokens per choice."""
    usage = Usage(input=facts.input_tokens, output=facts.choices * x)
    tokens, usd, requests, _ = facts.amounts(x)
    cost_nano = None if facts.price is None else usd
    return Outcome((tokens, usd, requests, 0), usage, cost_nano, ending="unknown", usage_source="estimate")


class Entry(NamedTuple):
    """
    One immutable row: what was said of a call at its end. In a correction the figures are differences to what was
    counted before, so sums over all rows are always the truth of the moment.
    """

    seq: int
    id: str
    hold_id: str
    kind: str
    """``call``, ``correction``, or ``transfer``: no call, but budget that went from one agent to another."""
    at_ms: int
    started_ms: int
    facts: CallFacts
    postings: tuple[Posting, ...]
    """Those of its hold."""
    said: Outcome
    """Its ``amounts`` are what this row added to what is settled on each of its accounts."""
    overrun: tuple[tuple[str, int], ...] = ()
    """By unit: what the provider reported beyond the hold."""
    suspect: bool = False
    """Counted at its hold, the outcome being unknown."""
    resolves_suspect: bool = False
    """A correction after which the call is no longer suspect."""
    transfers: tuple[Transfer, ...] = ()
    """What was borrowed for it and used."""

    @property
    def usage(self) -> tuple[tuple[str, int], ...]:
        """The kinds that are not zero."""
        return self.said.usage.present()

    @property
    def cost_nano(self) -> int | None:
        return self.said.cost_nano

    @property
    def ending(self) -> str:
        return self.said.ending

    @property
    def usage_source(self) -> str:
        return self.said.usage_source

    @property
    def model(self) -> str | None:
        """The model that answered, where the provider says it and it differs."""
        return self.said.model

    @property
    def note(self) -> str | None:
        return self.said.note

    def changes(self) -> Iterator[tuple[str, Balances]]:
        """By account, what this row added to its balances. Replaying all rows gives them."""
        posted = change(settled=self.said.amounts)
        for key, units, _ in self.postings:
            yield key, posted if units is None else posted.only(units)
        for transfer in self.transfers:
            yield from transfer.changes()

    def tokens(self, *kinds: str) -> int:
        """The sum of these kinds of usage (signed in a correction)."""
        return sum(count for kind, count in self.usage if kind in kinds)


def correction(now: Outcome, before: Outcome, posted: Amounts) -> Outcome:
    """What a correction says: the differences between what was counted *before* and what is true *now*."""
    cost_nano = None if now.cost_nano is None else now.cost_nano - (before.cost_nano or 0)
    # Counts of a difference may be below zero, as those of no usage may.
    return now._replace(amounts=posted, usage=bare(Usage, map(sub, now.usage, before.usage)), cost_nano=cost_nano)
