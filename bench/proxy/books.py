"""After each load: what the ledger says was spent is what the provider billed, to the nano-dollar."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from farthing.reports.accounts import list_accounts
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings

from .load import COMPLETION_TOKEN_NANO, PROMPT_TOKEN_NANO, until
from .ours import LIFETIME


class Total(NamedTuple):
    """Calls, and what they cost."""

    calls: int
    tokens: int
    nano: int

    def __add__(self, other: object) -> Total:
        if not isinstance(other, Total):
            return NotImplemented
        return Total(*(mine + its for mine, its in zip(self, other, strict=True)))

    def __sub__(self, other: Total) -> Total:
        return Total(*(mine - its for mine, its in zip(self, other, strict=True)))


class Books:
    """What the provider billed for calls through the proxy, beside what its ledger says."""

    def __init__(self, provider_port: int, ledger: Path) -> None:
        self._url = f"http://127.0.0.1:{provider_port}/tally"
        self._ledger = ledger
        self._billed = Total(0, 0, 0)

    @contextmanager
    def audited(self, what: str) -> Iterator[None]:
        """Calls within this block go through the proxy, and no others to the provider."""
        before = self._tally()
        yield
        self._billed += self._tally() - before
        if not until(lambda: self._in_ledger() == (self._billed, 0)):
            raise SystemExit(
                f"after {what} the provider has billed {self._billed}, and the ledger says "
                f"{self._in_ledger()[0]}, {self._in_ledger()[1]} held or suspect"
            )

    def _tally(self) -> Total:
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            said = json.load(answer)
        prompt, completion = said["prompt_tokens"], said["completion_tokens"]
        nano = prompt * PROMPT_TOKEN_NANO + completion * COMPLETION_TOKEN_NANO
        return Total(said["answers"], prompt + completion, nano)

    def _in_ledger(self) -> tuple[Total, int]:
        """What was spent, and the nano-dollars that are held or suspect."""
        runtime = Runtime(Settings(ledger=str(self._ledger)))
        try:
            [budget] = list_accounts(runtime.main.store, LIFETIME)
        finally:
            runtime.close()
        units = {figures.unit: figures for account in budget.accounts for figures in account.units}
        usd = units["usd"]
        return Total(units["requests"].spent, units["tokens"].spent, usd.spent), usd.held + usd.suspect
