"""What binds a caller: the accounts that its next call would be held on, with what is left on each."""

from __future__ import annotations

from typing import Any

from ..kernel.scope import Tags
from ..runtime.ambient import Ambient
from ..runtime.runtime import Runtime
from .accounts import account_figures


async def bound_accounts(here: Runtime, ambient: Ambient, tags: Tags) -> list[dict[str, Any]]:
    """
    One dict per account, as :meth:`AccountFigures.to_dict` gives it. A budget for certain models or providers binds
    where *tags* name them. Raises StoreUnavailable.
    """
    memory, durable = here.budgets(ambient, dict(tags))
    found = []
    for ledger, budgets in ((here.memory, memory), (here.durable, durable)):
        if ledger is None or not budgets:
            continue
        accounts = ledger.accounts(budgets, tags, ledger.store.now())
        keys = {key for account in accounts for key in account.keys}
        balances = await ledger.store.balances(keys)
        found += [account_figures(account, balances).to_dict(frozen=account.frozen) for account in accounts]
    return found
