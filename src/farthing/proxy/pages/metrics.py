"""
``/metrics`` for Prometheus.

All figures come from the ledger, so every worker says the same, whichever is asked, and a call pays nothing for being
counted. Only ``farthing_worker_*`` is what the worker that was asked has in hand, and bears its process id.

Counters are of rows as they were first written: they only grow. A row that was corrected later (a suspect call whose
truth came) is in ``farthing_corrections_*``, gauges that may be negative; counter + gauge is what the ledger says now.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ...kernel.hold import HELD, SUSPECT
from ...kernel.money import NANO_PER_USD
from ...kernel.sums import HOUR_MS
from ...kernel.tallies import NOTHING, Tally, TallyKey
from ...kernel.usage import KINDS
from ...reports.accounts import BudgetFigures, list_accounts
from ...runtime.runtime import Runtime
from ...stores.contract import Store
from ..callers.keys import KeyIdentify
from ..stats import Vitals
from .health import READY_SECONDS, ledger_trouble
from .page import Page, Reply, Request
from .replies import answered

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

ACCOUNTS_MAX = 2_000
"""Series of a budget for each user could be without number: beyond this, accounts are left out, and that is said."""
MODELS_MAX = 500
"""Callers name models as they like: beyond so many, those with the fewest tokens are one, and that is said."""
OTHERS = "(others)"
_Denied = tuple[str, str, str]
"""Budget, unit, and whether it was only said (``shadow``)."""


def metrics(runtime: Runtime, keys: KeyIdentify, vitals: Callable[[], Vitals]) -> Page:
    """For admin keys; without any key, for whoever is on this machine. *vitals* is asked in the event loop."""
    scraper = Scraper(runtime)

    async def page(request: Request) -> Reply:
        async def run() -> Reply:
            await keys.check_reader(request)
            trouble = await ledger_trouble(runtime.main.store, READY_SECONDS)
            accept = request.headers.get(b"accept", b"").decode("latin-1")
            body, content_type = await asyncio.to_thread(scraper.text, accept, trouble is None, vitals())
            return Reply(200, body, content_type.encode())

        return await answered(request, "GET", run)

    return page


class Scraper:
    """Adds up what is new in the ledger since it was last asked."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._start()

    def _start(self) -> None:
        self._seq = 0
        self._sums: dict[TallyKey, Tally] = {}
        self._denied: dict[_Denied, int] = {}
        """Of the hours before *_denied_until_ms*."""
        self._denied_until_ms: int | None = None

    def text(self, accept: str, ledger_up: bool, vitals: Vitals) -> tuple[bytes, str]:
        """The exposition and its media type. One scrape at a time. Raises StoreUnavailable."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        with self._lock:
            families = [*(self._families() if ledger_up else ()), *_worker(vitals), _up(ledger_up)]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(families))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def _families(self) -> Iterator[Metric]:
        store = self._runtime.main.store
        if store is not self._store:
            self._store = store
            self._start()
        self._add_up(store)
        sums, omitted = _bounded(self._sums)
        yield from _calls(sums)
        models = _gauge("models_omitted", f"Models beyond {MODELS_MAX:,}, together counted as {OTHERS}.")
        models.add_metric((), omitted)
        yield models
        yield _denials(self._count_denials(store))
        yield from _open(store)
        yield from _budgets(list_accounts(store))

    def _add_up(self, store: Store) -> None:
        seq, new, whole = store.tally(after_seq=self._seq).result()
        if whole:
            self._sums = {}
        for key, tally in new.items():
            self._sums[key] = self._sums.get(key, NOTHING).plus(tally)
        self._seq = seq

    def _count_denials(self, store: Store) -> dict[_Denied, int]:
        """Hours that are over for long are read once; the others may still grow."""
        until_ms = store.now() - 2 * HOUR_MS
        until_ms -= until_ms % HOUR_MS
        recent: dict[_Denied, int] = {}
        for key, count in store.denials(since_ms=self._denied_until_ms).result().items():
            counts = self._denied if key.hour_ms < until_ms else recent
            of = (key.budget, key.unit, str(key.shadow).lower())
            counts[of] = counts.get(of, 0) + count
        self._denied_until_ms = until_ms
        return {of: self._denied.get(of, 0) + recent.get(of, 0) for of in {*self._denied, *recent}}


class _Collected:
    """Families that were made before, as Prometheus' registry wants them."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _bounded(sums: dict[TallyKey, Tally]) -> tuple[dict[TallyKey, Tally], int]:
    """The sums of no more models than have series, and how many models are counted together as others."""
    used: dict[tuple[str, str], int] = {}
    for key, tally in sums.items():
        model = (key.provider, key.model)
        used[model] = used.get(model, 0) + sum(tally.usage)
    if len(used) <= MODELS_MAX:
        return sums, 0
    kept = set(sorted(used, key=lambda model: (-used[model], model))[:MODELS_MAX])
    bounded: dict[TallyKey, Tally] = {}
    for key, tally in sums.items():
        of = key if (key.provider, key.model) in kept else key._replace(model=OTHERS)
        bounded[of] = bounded.get(of, NOTHING).plus(tally)
    return bounded, len(used) - MODELS_MAX


def _calls(sums: dict[TallyKey, Tally]) -> Iterator[Metric]:
    calls = _counter("calls", "Calls that were sent, by how they ended.", "provider", "model", "ending", "usage_source")
    unpriced = _counter("unpriced_calls", "Calls without a known price: their cost is unknown, not zero.", *_OF)
    overrun = _counter("overrun_calls", "Calls that cost more than was held for them.", *_OF)
    cost = _counter("cost_usd", "What calls cost, in US dollars.", *_OF)
    tokens = _counter("tokens", "Tokens, by kind; reasoning is part of output.", *_OF, "kind")
    seconds = _counter("call_seconds", "Seconds from hold to end, summed: by farthing_calls_total, the mean.", *_OF)
    corrected_cost = _gauge("corrections_cost_usd", "What later truths about calls added to their cost.", *_OF)
    corrected_tokens = _gauge(
        "corrections_tokens", "What later truths about calls added to their tokens.", *_OF, "kind"
    )
    by_model: dict[tuple[bool, str, str], Tally] = {}
    for key, tally in sums.items():
        is_call = key.kind == "call"
        model = (is_call, key.provider, key.model)
        by_model[model] = by_model.get(model, NOTHING).plus(tally)
        if is_call:
            calls.add_metric((key.provider, key.model, key.ending, key.usage_source), tally.calls)
    for (is_call, *of), tally in sorted(by_model.items()):
        (cost if is_call else corrected_cost).add_metric(of, tally.cost_nano / NANO_PER_USD)
        for kind, count in zip(KINDS, tally.usage, strict=True):
            if count:
                (tokens if is_call else corrected_tokens).add_metric((*of, kind), count)
        if is_call:
            unpriced.add_metric(of, tally.calls - tally.priced)
            overrun.add_metric(of, tally.overrun)
            seconds.add_metric(of, tally.milliseconds / 1_000)
    yield from (calls, unpriced, overrun, cost, tokens, seconds, corrected_cost, corrected_tokens)


def _denials(denied: dict[_Denied, int]) -> Metric:
    family = _counter("denials", "Calls that a budget refused; shadow: would have refused.", "budget", "unit", "shadow")
    for of, count in sorted(denied.items()):
        family.add_metric(of, count)
    return family


def _open(store: Store) -> Iterator[Metric]:
    """Calls in flight, and calls with an unknown outcome."""
    holds = _gauge("holds", "Holds that are counted: held by calls in flight, or suspect.", "state")
    counts = {HELD: 0, SUSPECT: 0}
    for hold in store.holds(HELD, SUSPECT).result():
        counts[hold.state] += 1
    for state, count in counts.items():
        holds.add_metric((state,), count)
    yield holds


def _budgets(found: list[BudgetFigures]) -> Iterator[Metric]:
    labels = ("budget", "account", "unit")
    families = {
        name: _gauge(f"budget_{name}", f"{text} Money is in US dollars.", *labels)
        for name, text in (
            ("limit", "The limit of this instant, grants included."),
            ("spent", "Spent in the current window."),
            ("held", "Held by calls in flight."),
            ("suspect", "Counted for calls with an unknown outcome."),
            ("remaining", "Left of the limit."),
        )
    }
    frozen = _gauge("budget_frozen", "1 while a budget is frozen and denies every call.", "budget")
    accounts = 0
    for budget in found:
        frozen.add_metric((budget.budget.name,), int(budget.frozen))
        for account in budget.accounts:
            accounts += 1
            if accounts > ACCOUNTS_MAX:
                continue
            scope = ",".join(f"{name}={_value(value)}" for name, value in account.scope.items())
            for figures in account.units:
                of = (budget.budget.name, scope, figures.unit)
                for name, family in families.items():
                    amount = getattr(figures, name)
                    if amount is not None:
                        family.add_metric(of, amount / NANO_PER_USD if figures.unit == "usd" else amount)
    omitted = _gauge("budget_accounts_omitted", f"Accounts beyond the first {ACCOUNTS_MAX:,}: they are not shown here.")
    omitted.add_metric((), max(0, accounts - ACCOUNTS_MAX))
    yield from (*families.values(), frozen, omitted)


def _value(value: str | None) -> str:
    """A tag's value in a label: no two accounts have one label, whatever callers put into their tags."""
    if value is None:
        return ""
    return value if value and not _AMBIGUOUS.intersection(value) else json.dumps(value, ensure_ascii=False)


_AMBIGUOUS = frozenset(',="')


def _worker(vitals: Vitals) -> Iterator[Metric]:
    """Of this process only: with several workers each scrape sees one of them."""
    pid = str(os.getpid())
    for name, text, value in (
        ("connections", "Connections of clients that this worker has, idle ones too.", vitals.connections),
        ("calls_in_flight", "Calls that this worker has sent and not ended.", vitals.calls_in_flight),
        ("tasks", "Tasks of this worker's event loop; when nobody calls, always the same few.", vitals.tasks),
    ):
        family = _gauge(f"worker_{name}", text, "worker")
        family.add_metric((pid,), value)
        yield family


def _up(ledger_up: bool) -> Metric:
    family = _gauge("ledger_up", "1 if the ledger answers, so that calls can be held.")
    family.add_metric((), int(ledger_up))
    return family


_OF = ("provider", "model")


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(f"farthing_{name}", text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"farthing_{name}", text, labels=labels)
