"""
What ``farthing doctor`` looks at: each check says how it went and, where it did not go well, what to do.

A check never makes a ledger and never changes one. The network is asked for the upstreams of a configuration only.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import prices
from ..admin.holds import open_holds
from ..errors import ConfigError, FarthingError
from ..kernel.budget import Budget
from ..kernel.ratios import Ratios
from ..runtime.learning import learned_of
from ..sdk.known import installed_packages
from ..stores import open_store
from ..stores.contract import wall_clock_ms
from ..stores.sqlite.connection import JOURNAL_SIZE_LIMIT_BYTES
from ..stores.sqlite.files import file_system_type
from ..tokens.vocab import backend
from .amounts import number_of
from .configured import Check, check_configuration, check_upstreams
from .ledger import file_of, ledger_url

STALE_DAYS = 30
CLOCK_AHEAD_MS = 60_000
ROOM_BYTES = JOURNAL_SIZE_LIMIT_BYTES
_ENCODINGS = ("o200k_base", "cl100k_base")


def checks(ledger: str | None, config: str | None = None) -> Iterator[Check]:
    """Every check, in the order in which a person would ask. ConfigError for a ledger that cannot be meant."""
    yield _python()
    configuration = None
    if config is not None:
        configuration = yield from check_configuration(config)
    ledger = ledger or (configuration.given.get("ledger") if configuration is not None else None)
    yield from _ledger(ledger, () if configuration is None else configuration.budgets)
    if configuration is not None:
        yield from check_upstreams(configuration)
    yield _prices()
    yield from _tokens()
    yield from _packages()


def _python() -> Check:
    own = sys.modules[__name__.partition(".")[0]].__version__
    python = ".".join(map(str, sys.version_info[:3]))
    return Check("farthing", "ok", f"{own} on Python {python}, {sys.platform}")


def _ledger(given: str | None, wanted: Sequence[Budget] = ()) -> Iterator[Check]:
    url = ledger_url(given)
    file = file_of(url)
    path = file or Path(url)
    whose = "from --ledger, FARTHING_LEDGER or --config" if given else "your own; FARTHING_LEDGER names another"
    if file is not None and not file.exists():
        yield Check("ledger", "note", f"none at {path} yet ({whose}): the first program that uses it makes it")
        yield _folder(path)
        return
    try:
        store = open_store(url, key="--ledger")
    except ConfigError:
        raise
    except FarthingError as error:
        yield Check(
            "ledger",
            "failed",
            f"{path} cannot be opened: {error}",
            "name another ledger, or mend what it says; nothing was changed",
        )
        return
    try:
        catalogue = store.catalogue().result()
        found = open_holds(store)
        suspects = sum(hold.state == "suspect" for hold in found)
        says = f"{path} opens ({whose}): {number_of(len(catalogue.budgets), 'budget')}, "
        says += f"{number_of(len(found) - suspects, 'call')} in flight"
        yield Check("ledger", "ok", says)
        for budget in wanted:
            known = catalogue.budgets.get(budget.name)
            if known != budget:
                how = "is not in the ledger" if known is None else "has other terms in the ledger"
                says = f"budget {budget.name!r} of the configuration {how}"
                yield Check("budgets", "note", says, "`farthing budgets apply`, or the next start, puts it there")
        if suspects:
            remedy = "`farthing holds list` shows them, `farthing holds resolve` ends them"
            yield Check(
                "suspects",
                "warning",
                f"{number_of(suspects, 'call')} with an unknown outcome, still counted against their budgets",
                remedy,
            )
        yield _folder(path)
        yield _clock(store.now())
        yield from _learned(store.ratios().result())
    except FarthingError as error:
        yield Check(
            "ledger",
            "failed",
            f"{path} cannot be read: {error}",
            "name another ledger, or mend what it says; nothing was changed",
        )
    finally:
        store.close()


def _folder(path: Path) -> Check:
    """Locks lie beside the ledger: who cannot write there cannot hold."""
    folder = next((each for each in path.parents if each.exists()), path.parent)
    kind = file_system_type(folder)
    where = f"{folder}{f' ({kind})' if kind else ''}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check(
            "folder",
            "failed",
            f"{where} is not writable, so no lock can be taken",
            "let this user write there, or name another",
        )
    free = shutil.disk_usage(folder).free
    if free < ROOM_BYTES:
        says = f"{where} is on a disk that is all but full: {free / 2**20:,.1f} MiB are left"
        return Check("folder", "warning", says, "make room: a ledger that cannot grow refuses every call")
    return Check("folder", "ok", f"{where} is writable: locks and the write-ahead log go there")


def _clock(ledger_ms: int) -> Check:
    """Windows go by the later of this clock and the last time that the ledger has seen."""
    behind_ms = ledger_ms - wall_clock_ms()
    if behind_ms > CLOCK_AHEAD_MS:
        says = f"this clock is {behind_ms // 1000} s behind the last time that the ledger has seen"
        return Check("clock", "warning", says, "set this machine's clock: windows end late until it has caught up")
    return Check("clock", "ok", "agrees with the ledger's last entry")


def _learned(ratios: Ratios) -> Iterator[Check]:
    """How dense the text of models without a public tokeniser was billed."""
    for model in sorted({key.model for key in ratios}):
        known = learned_of(ratios, model)
        if known is not None:
            yield Check("learned", "ok", f"the text of {model} is counted as {known}")


def _prices() -> Check:
    days = prices.age_days()
    if days is None:
        return Check("prices", "failed", "there is no price table", "reinstall genai-prices")
    if days < 0:
        return Check(
            "prices", "failed", f"were last checked {number_of(-days, 'day')} from now", "set this machine's clock"
        )
    remedy = "pip install --upgrade genai-prices" if days > STALE_DAYS else ""
    return Check("prices", "warning" if remedy else "ok", f"last checked {number_of(days, 'day')} ago", remedy)


def _tokens() -> Iterator[Check]:
    for encoding in _ENCODINGS:
        found = backend(encoding)
        if found.name is not None:
            yield Check("tokens", "ok", f"{encoding} is counted by {found.name}, exactly")
        else:
            says = f"{encoding} is bounded by bytes, several times too high: {'; '.join(found.problems)}"
            yield Check("tokens", "warning", says, "pip install quicktok-v1, or splintr-rs")


def _packages() -> Iterator[Check]:
    found = list(installed_packages())
    if not found:
        yield Check("clients", "note", "no SDK that farthing can govern is installed in this environment")
    for package in found:
        title = f"{package.name} {package.version}"
        if package.governed == "no":
            yield Check("clients", "warning", f"{title} cannot be governed", package.how)
        elif package.untested:
            yield Check("clients", "note", f"{title} is governed by {package.how}; tested with other versions of it")
        else:
            yield Check("clients", "ok", f"{title} is governed by {package.how}")
