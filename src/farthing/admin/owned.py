"""
Budgets that a configuration file owns: what differs between the file and a ledger, and putting it right.

Only definitions change. Accounts, holds in flight and grants stay where they are: a hold ends on the accounts that it
was placed on, whatever has become of its budget since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from ..errors import ConfigError
from ..kernel.budget import Budget
from ..stores.contract import Store
from .standing import Set


class Changes(NamedTuple):
    """What a file changes in a ledger. ``changed`` includes budgets that the file takes over from a person."""

    added: tuple[Budget, ...] = ()
    changed: tuple[Set, ...] = ()
    removed: tuple[Budget, ...] = ()

    def lines(self) -> list[str]:
        """One line for each budget, for a log."""
        return [
            *(f"budget {budget.name!r}: added, {budget.terms_text()}" for budget in self.added),
            *(f"budget {set_.now.name!r}: {'; '.join(set_.changes()) or 'taken over'}" for set_ in self.changed),
            *(f"budget {budget.name!r}: removed, {budget.terms_text()}" for budget in self.removed),
        ]


def differences(known: Mapping[str, Budget], wanted: Iterable[Budget], *, defined_by: str) -> Changes:
    """
    What has to change in a ledger that knows these budgets, so that it has the *wanted* ones of this source. Pure.

    Budgets of nobody (set by a person or named by a program) are taken over; those of nobody that the source does not
    name stay. Raises ConfigError where a name belongs to another source.
    """
    added, changed = [], []
    names = set()
    for budget in wanted:
        named = replace(budget, standing=True, defined_by=defined_by)
        names.add(named.name)
        before = known.get(named.name)
        if before is None:
            added.append(named)
        elif before.defined_by not in (None, defined_by):
            raise ConfigError(
                f"the ledger has this budget from {before.defined_by}: one source owns it, so take it out of the other",
                key=f"budgets.{named.name}",
            )
        elif before != named:
            changed.append(Set(before, named))
    removed = [budget for budget in known.values() if budget.defined_by == defined_by and budget.name not in names]
    return Changes(tuple(added), tuple(changed), tuple(removed))


def put_owned(store: Store, wanted: Iterable[Budget], *, defined_by: str) -> Changes:
    """
    Make a ledger have these budgets of this source, and no other ones of it. Several processes may do it at once.

    Raises ConfigError, before anything is changed, where a name belongs to another source; StoreUnavailable.
    """
    changes = differences(store.catalogue().result().budgets, wanted, defined_by=defined_by)
    for budget in (*changes.added, *(set_.now for set_ in changes.changed)):
        store.put_budget(budget, update=True).result()
    for budget in changes.removed:
        try:
            store.remove_budget(budget.name, defined_by=defined_by).result()
        except ConfigError:
            # Another process of the same source was faster, or a person took it away meanwhile.
            if budget.name in store.catalogue().result().budgets:
                raise
    return changes
