"""
Changing a budget that others may change at the same time: from what its terms are at that very instant.

Whoever reads terms, changes one of them and writes all of them back undoes what others changed in between, and what a
process knows of a catalogue may be half a second old. So a change is a function of the terms, written only onto the
catalogue that it was made from, and made again where that has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..errors import StoreUnavailable
from ..kernel.budget import Budget
from ..kernel.catalogue import Catalogue
from .contract import Store

ATTEMPTS_MAX = 500
"""How often others may be faster. Each time one of them got its change through."""


class Changed(NamedTuple):
    """A budget before and after (None: there is none), and the catalogue that it is in."""

    before: Budget | None
    now: Budget | None
    catalogue: Catalogue


def latest(store: Store) -> Catalogue:
    """The catalogue as it is in the ledger now. (A change that comes from no version there is changes nothing.)"""
    return store.put_budgets((), catalogue_version=-1).result()


def change_budget(
    store: Store, name: str, make: Callable[[Budget | None], Budget | None], *, update: bool = True
) -> Changed:
    """
    Put what *make* makes of a budget's terms (None: there is none) in their place; if it makes None, all stays.

    Raises ConfigError as :meth:`~farthing.kernel.catalogue.Catalogue.with_budget` does, and what *make* raises.
    """
    known = latest(store)
    for _ in range(ATTEMPTS_MAX):
        before = known.budgets.get(name)
        wanted = make(before)
        after = known if wanted is None else known.with_budget(wanted, update=update)
        if after is known:
            return Changed(before, before, known)
        now = after.budgets[name]
        known = store.put_budgets([now], catalogue_version=known.version).result()
        # The very object: others may have written the same terms, and then ours come on top of theirs.
        if known.budgets.get(name) is now:
            return Changed(before, now, known)
    raise StoreUnavailable(store.name, f"budget {name!r} was changed {ATTEMPTS_MAX} times while it was being changed")
