"""
The process that the demo kills: it has calls in flight, and no time for a last word.

Run as ``python -m farthing.cli.demo.victim`` with a JSON object as its argument.
"""

from __future__ import annotations

import json
import sys
import threading
from decimal import Decimal
from typing import NamedTuple

from ...runtime.default import configure
from ...scopes.budgets import budget
from .callers import make_caller

BUDGET = "demo"


class Orders(NamedTuple):
    """What the victim is told."""

    ledger: str
    naive_url: str
    ours_url: str
    budget_usd: str
    call_usd: str
    calls: int
    """How many for each of the two ways."""


def main() -> None:
    orders = Orders(**json.loads(sys.argv[1]))
    configure(ledger=orders.ledger)
    naive = make_caller(orders.naive_url, governed=False)
    ours = make_caller(orders.ours_url, governed=True, call_usd=Decimal(orders.call_usd))
    with budget(BUDGET, usd=Decimal(orders.budget_usd)):
        threads = [
            threading.Thread(target=caller.call, daemon=True) for caller in (naive, ours) for _ in range(orders.calls)
        ]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
