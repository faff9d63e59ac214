"""
What this process learns of how dense models' texts are: from its own calls at once, from others through the ledger.

A call that is held asks for its factor in memory, and one that is settled leaves its ratio in memory: neither waits for
a store. The housekeeper carries both ways: a larger ratio within half a second, the number of calls with each sweep.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple

from ..errors import StoreUnavailable
from ..kernel.hold import Outcome
from ..kernel.plan import CallFacts
from ..kernel.ratios import NOTHING_SEEN, Ratio, RatioKey, Ratios, merged
from ..stores.contract import Store
from ..tokens import Family, Weight, family_of, learned, ratio_of

KEYS_MAX = 4_096
"""Models at most: their names come from requests (though only those that a provider answered)."""


class Learner:
    """Belongs to one runtime. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._told: Ratios = {}
        """As the ledger last said."""
        self._seen: Ratios = {}
        """On top of that, what the ledger has not been told."""
        self._grew = False
        self._families: dict[tuple[str, str], Family] = {}

    def in_child(self) -> None:
        """After a fork: the thread that had the lock may have stayed behind."""
        self._lock = threading.RLock()

    def family(self, model: str | None, dialect: str | None) -> Family | None:
        """How text is counted for this model in this dialect; None where nothing was learned of it."""
        return self._families.get((model, dialect))  # type: ignore[arg-type]  # a key of None is in no dictionary

    def ratios(self) -> Ratios:
        """All that is known here, the ledger's and our own."""
        with self._lock:
            return merged(self._told, self._seen)

    def observe(self, facts: CallFacts, weight: Weight, outcome: Outcome) -> None:
        """A call that was counted so was settled to this."""
        billed = outcome.usage.input_tokens
        if facts.model is None or facts.dialect is None or billed == 0:
            return
        if outcome.usage_source != "provider" and billed <= facts.input_tokens:
            return
        family = self.family(facts.model, facts.dialect) or family_of(facts.model)
        shown = ratio_of(weight, family, billed=billed)
        if shown is None:
            return
        key = RatioKey(facts.model, facts.dialect)
        with self._lock:
            known = merged(_only(self._told, key), _only(self._seen, key)).get(key, NOTHING_SEEN)
            if known is NOTHING_SEEN and len(self._families) >= KEYS_MAX:
                return
            self._seen = merged(self._seen, {key: shown})
            self._grew = self._grew or shown.milli > known.milli or shown.extra > known.extra
            self._learn(key)

    def refresh(self, told: Ratios) -> None:
        """What the ledger says now."""
        with self._lock:
            if told is not self._told:
                self._told = told
                self._families = {}
                for key in {**told, **self._seen}:
                    self._learn(key)

    def exchange(self, store: Store, *, everything: bool) -> None:
        """Tell the ledger of larger ratios (with *everything*, also of calls that showed none), and listen to it."""
        if self._grew or (everything and self._seen):
            self.tell(store)
        else:
            self.refresh(store.ratios().result())

    def tell(self, store: Store) -> None:
        """Write what was seen. If the ledger is unavailable it stays here, for the next time."""
        with self._lock:
            seen, before, grew = self._seen, self._told, self._grew
            if not seen:
                return
            self._told, self._seen, self._grew = merged(before, seen), {}, False
        try:
            self.refresh(store.add_ratios(seen).result())
        except StoreUnavailable:
            with self._lock:
                self._told, self._grew = before, self._grew or grew
                self._seen = merged(seen, self._seen)
            raise

    def _learn(self, key: RatioKey) -> None:
        known = merged(_only(self._told, key), _only(self._seen, key))[key]
        self._families[key] = learned(family_of(key.model), known)


class Learned(NamedTuple):
    """What is known of a model, whatever dialect it was called in: for people, and for estimates without a request."""

    ratio: Ratio
    family: Family
    """The densest that a call may be counted by."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: ratio and factor as decimal text."""
        return {
            "ratio": format(Decimal(self.ratio.milli) / 1000, "f"),
            "calls": self.ratio.calls,
            "extra_tokens": self.ratio.extra,
            "factor": format(Decimal(self.family.num) / self.family.den, "f"),
        }

    def __str__(self) -> str:
        said = self.to_dict()
        calls = f"{self.ratio.calls:,} {'call' if self.ratio.calls == 1 else 'calls'}"
        seen = f"at most {said['ratio']} seen in {calls}" if self.ratio.calls else "no long text seen"
        extra = f", and {self.ratio.extra:,} on top of each call" if self.ratio.extra else ""
        return f"{said['factor']} tokens for each of o200k ({seen}){extra}"


def learned_of(ratios: Ratios, model: str) -> Learned | None:
    """What was learned of a model; None if nothing was, or its vocabulary needs no guess."""
    start = family_of(model)
    found = [ratio for key, ratio in ratios.items() if key.model == model]
    if not found or not start.guessed:
        return None
    families = [learned(start, ratio) for ratio in found]
    together = Ratio(max(r.milli for r in found), sum(r.calls for r in found), max(r.extra for r in found))
    densest = max(families, key=lambda family: (family.num, family.extra))
    return Learned(together, replace(densest, extra=together.extra))


def _only(ratios: Ratios, key: RatioKey) -> Ratios:
    return {key: ratios[key]} if key in ratios else {}
