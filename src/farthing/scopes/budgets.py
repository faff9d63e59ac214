"""
``budget(...)``: a limit around a function, or around a ``with``.

**Anonymous** (no name): one unit of work. Every call of the decorated function and every ``with`` starts fresh, in
memory. **Named**: one account on the ledger, shared by everyone who names it, over the window ``per``.
"""

from __future__ import annotations

import functools
import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from ..admin.standing import grant_more
from ..calls.exceeding import Allow, ends_quietly
from ..errors import ConfigError, StoreUnavailable
from ..kernel.balances import UNITS, Balance, total
from ..kernel.budget import Budget, make_budget, unit_of_work
from ..kernel.decision import Decision
from ..kernel.money import usd_from_nano
from ..runtime import threads
from ..runtime.ambient import Ambient, Binding, current, enter
from ..runtime.default import runtime
from ..runtime.ledgers import Ledger
from ..runtime.runtime import log
from ..stores.changing import latest
from ..tokens.models import check_one_provider
from .bodies import around

F = TypeVar("F", bound=Callable[..., Any])
Handler = Callable[[Decision], Allow | None]
"""A callable ``on_exceed``: called before sending; what it raises reaches the caller."""
_numbers = itertools.count(1)
_UNIT = f"unit-{os.urandom(6).hex()}"
"""How the ids of units of work begin: as no named budget is called, whose account is in the same memory."""
entered: list[Callable[[], None]] = []
"""Called whenever a budget is entered: doors watch from then on for calls that pass them by."""


class Amounts(NamedTuple):
    """Figures of a budget in its three units. ``usd`` is exact; None stands for a unit without a limit."""

    tokens: int | None
    usd: Decimal | None
    requests: int | None


class BudgetHandle:
    """
    What :func:`budget` returns: a decorator and a context manager (sync and async) in one.

    Its figures are those of the unit of work that this context is in, else of the one entered last; for a named budget
    those of its account for the current tags and window.
    """

    def __init__(
        self, terms: Budget, *, update: bool = False, label: str | None = None, handler: Handler | None = None
    ) -> None:
        self._terms = terms
        self._handler = handler
        self._update = update
        self._label = label
        self._last: Binding | None = None
        """The unit of work that was entered last. Its figures may be asked for as long as this object is there."""
        self._registered: tuple[object, Budget] | None = None
        self._prefix = f"{_UNIT}-{next(_numbers)}-"
        self._attached = all(terms.limit(unit) is None for unit in UNITS)
        """Only named: its terms are those that the ledger has."""

    def __repr__(self) -> str:
        if self._attached:
            return f"budget({self._terms.name!r})"
        name = "" if self._terms.anonymous else f"{self._terms.name!r}, "
        return f"budget({name}{self._terms.terms_text()}, on_exceed={self._terms.on_exceed!r})"

    def __getstate__(self) -> dict[str, Any]:
        # A copy, in another process too, names its budget in the ledger that is there.
        return {**vars(self), "_registered": None}

    @functools.cached_property
    def _unnamed(self) -> str:
        return f"unnamed ({self._terms.terms_text()})"

    # -- what it is ----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str | None:
        """The name, or None for an anonymous budget."""
        return None if self._terms.anonymous else self._terms.name

    @property
    def terms(self) -> Budget:
        """The validated terms; of a budget that was only named, the ledger's."""
        return self._define() if self._attached else self._terms

    # -- its figures ---------------------------------------------------------------------------------------------

    @property
    def spent(self) -> Amounts:
        """What calls really cost. Suspect calls are not in it: see :attr:`suspect`."""
        return self._amounts(lambda balance: balance.settled)

    @property
    def held(self) -> Amounts:
        """What calls in flight may still cost."""
        return self._amounts(lambda balance: balance.held)

    @property
    def suspect(self) -> Amounts:
        """What calls with an unknown outcome may have cost."""
        return self._amounts(lambda balance: balance.suspect)

    @property
    def remaining(self) -> Amounts:
        """limit − spent − held − suspect, never below 0; None for a unit without a limit."""
        balances, ceilings = self._balances()
        left = {
            unit: None if ceiling is None else max(0, ceiling - balances.get(unit, Balance()).total)
            for unit, ceiling in ceilings.items()
        }
        usd = left["usd"]
        return Amounts(left["tokens"], None if usd is None else usd_from_nano(usd), left["requests"])

    def freeze(self) -> None:
        """Deny every call that this (named) budget binds, at once and in every process, until :meth:`unfreeze`."""
        self._set_frozen(True)

    def unfreeze(self) -> None:
        """Undo :meth:`freeze`."""
        self._set_frozen(False)

    def grant(
        self,
        *,
        usd: Decimal | int | float | None = None,
        tokens: int | None = None,
        requests: int | None = None,
        until: str | None = None,
        scope: Mapping[str, object] | None = None,
        reason: str | None = None,
    ) -> None:
        """
        Raise this (named) budget for a while, in every process: by these amounts, in its current window.

        Args:
            until: a date, an ISO time, or a span from now (``"7d"``); as long as the window lasts if not given.
            scope: of a budget with ``each``, only the account of these values: ``{"user": "alice"}``.
            reason: why; kept with the grant.

        Raises ValueError naming the argument; ConfigError where the budget has no limit in that unit.
        """
        if self._terms.anonymous:
            raise ValueError("grant: an anonymous budget is one unit of work; only a named budget can be raised")
        self._define()
        ledger = runtime().main
        grant_more(
            ledger.store,
            self._terms.name,
            usd=usd,
            tokens=tokens,
            requests=requests,
            until=until,
            scope=scope,
            reason=reason,
        )
        ledger.refresh(latest(ledger.store))

    def _set_frozen(self, frozen: bool) -> None:
        if self._terms.anonymous:
            raise ValueError("freeze: an anonymous budget is one unit of work; only a named budget can be frozen")
        self._define()
        ledger = runtime().main
        ledger.refresh(ledger.store.freeze(self._terms.name, frozen=frozen).result())

    def _amounts(self, pick: Callable[[Balance], int]) -> Amounts:
        balances, _ = self._balances()
        zero = Balance()
        return Amounts(
            pick(balances.get("tokens", zero)),
            usd_from_nano(pick(balances.get("usd", zero))),
            pick(balances.get("requests", zero)),
        )

    def _balances(self) -> tuple[dict[str, Balance], dict[str, int | None]]:
        """The account's balance and ceiling by unit."""
        here = runtime()
        here.housekeeper.catch_up()
        budget = self._unit() if self._terms.anonymous else self._define()
        if budget is None:
            limits = {unit: self._terms.limit(unit) for unit in ("tokens", "usd", "requests")}
            return {}, limits
        ledger = here.memory if budget.anonymous else here.main
        tags = dict(current().tags)
        account = ledger.accounts([budget], tags, ledger.store.now())[0]
        ceilings = {unit: account.ceiling(unit) for unit in ("tokens", "usd", "requests")}
        row = total(ledger.store.balances(account.keys).result().values())
        return {unit: row.of(unit) for unit in ceilings}, ceilings

    def _unit(self) -> Budget | None:
        for binding in reversed(current().bindings):
            if self._is_mine(binding.budget):
                return binding.budget
        return None if self._last is None else self._last.budget

    # -- entering ------------------------------------------------------------------------------------------------

    def _define(self) -> Budget:
        """Name this budget in the current ledger, once per ledger; its terms as they are there now."""
        here = runtime()
        known = self._registered
        ledger = here.main
        if self._attached:
            return self._find(ledger)
        if known is None or known[0] is not ledger:
            try:
                self._registered = known = (ledger, here.put_budget(self._terms, update=self._update))
            except StoreUnavailable as error:
                if here.settings.on_store_failure != "allow":
                    raise
                log.error("%s; budget %r is named there when it is entered again", error, self._terms.name)
                return ledger.catalogue.budgets.get(self._terms.name, self._terms)
        return ledger.catalogue.budgets.get(known[1].name, known[1])

    def _find(self, ledger: Ledger) -> Budget:
        name = self._terms.name
        if name not in ledger.catalogue.budgets:
            # What a store knows of other processes' changes may be half a second old.
            ledger.refresh(latest(ledger.store))
        if name not in ledger.catalogue.budgets:
            raise ConfigError(
                f"no budget is named {name!r} in ledger {ledger.store.name}: give it a limit here, such as "
                f"budget({name!r}, usd=5, per='day'), or set it before with `farthing budgets set`",
                key="budget",
            )
        return ledger.catalogue.budgets[name]

    def _open(self) -> Binding:
        for begin in entered:
            begin()
        if runtime().settings.follow_threads:
            threads.follow()
        if self._terms.anonymous:
            unit = unit_of_work(
                self._terms,
                unit_id=f"{self._prefix}{next(_numbers)}",
                label=self._label or self._unnamed,
            )
            here = runtime()
            here.put_units_away()
            here.memory.alerting = here.memory.alerting or bool(self._terms.alerts)
            binding = Binding(unit, os.getpid(), self._handler)
            # With the last context, call in flight or handle that has the binding, its account goes.
            weakref.finalize(binding, here.close_unit, unit).atexit = False
            self._last = binding
            return binding
        return Binding(self._define(), os.getpid(), self._handler)

    def __enter__(self) -> Self:
        enter(current().with_binding(self._open()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        # Found by looking, not by a token: many tasks may enter one object at once, and leave it in another context.
        ambient = current()
        for binding in reversed(ambient.bindings):
            if self._is_mine(binding.budget):
                enter(ambient.without(binding))
                return ends_quietly(error, binding)
        return False

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return self.__exit__(kind, error, traceback)

    def _is_mine(self, budget: Budget) -> bool:
        if self._terms.anonymous:
            return budget.anonymous and budget.name.startswith(self._prefix)
        return budget.name == self._terms.name and not budget.anonymous

    # -- decorating ----------------------------------------------------------------------------------------------

    def __call__(self, function: F) -> F:
        """Cover a function's body: sync, async, generator or async generator."""
        if not callable(function):
            raise ValueError(f"a budget decorates a function, not {function!r}")
        self._label = self._label or f"{getattr(function, '__qualname__', function)}()"
        wrapped: Any = around(function, self._opened)
        functools.update_wrapper(wrapped, function)
        wrapped.budget = self
        return wrapped  # type: ignore[no-any-return]

    def _opened(self) -> tuple[Ambient, Binding]:
        own = self._open()
        return current().with_binding(own), own


def budget(
    name: str | None = None,
    *,
    usd: Decimal | int | float | None = None,
    tokens: int | None = None,
    requests: int | None = None,
    concurrency: int | None = None,
    per: str | None = None,
    on_exceed: str | Handler = "block",
    downgrade: Mapping[str, str] | None = None,
    scope: Mapping[str, object] | None = None,
    each: tuple[str, ...] | list[str] = (),
    description: str | None = None,
    min_output_tokens: int = 16,
    default_output_tokens: int | None = None,
    wait_seconds: float = 30,
    uncapped: str = "inject",
    open_bound: str = "context_window",
    alerts: Iterable[Decimal | int | float] = (),
    update: bool = False,
) -> BudgetHandle:
    """
    A hard budget for LLM calls: a decorator for functions (sync, async, generators) and a context manager.

    Without a *name* it is one unit of work: every call of the function, every ``with``, starts fresh, in memory.
    With a name it is one account on the ledger, shared by everyone who names it, over the window *per*; it binds the
    calls made inside. A name alone, ``budget("search")``, is a budget that the ledger has already, on its terms.
    Budgets nest, all that match are held together, and follow tasks and threads.

    Args:
        name: makes it a shared account.
        usd, tokens, requests, concurrency: the limits, at least one. Exactly at the limit is allowed. 0 denies all.
        per: ``"lifetime"`` (default), ``"minute" "hour" "day" "week" "month"`` (a time zone may follow:
            ``"day Europe/Berlin"``), ``"rolling 60s"``, or ``"request"``: a check of each call alone.
        on_exceed: what happens when a call does not fit: ``"block"`` raises BudgetExceeded before it is sent;
            ``"clamp"`` lowers its output ceiling to what fits; ``"break"`` does too, and ends a stream in good order
            when its hold is used up; ``"downgrade"`` takes the cheaper model of the map;
            ``"raise"`` lets the crossing call finish, then raises with its result (a guard against runaways, not a hard
            cap); ``"warn"`` never objects, logs and counts; ``"wait"`` queues, first come first served, until something
            refills or comes back, at most *wait_seconds*; ``"truncate"`` ends the ``with`` or the function quietly; a
            callable gets the Decision and returns :class:`farthing.Allow` or None.
        downgrade: for ``on_exceed="downgrade"``: ``{"gpt-4o": "gpt-4o-mini"}``; chains are followed.
        scope: tags that a call must carry for this (named) budget to bind it.
        each: tags that split it into one account per value: ``each=["user"]``.
        min_output_tokens: the least output that a lowered ceiling may leave.
        wait_seconds: for ``on_exceed="wait"``.
        default_output_tokens: what a request without an output ceiling of its own is given, at most.
        uncapped: such a request is given a ceiling (``"inject"``), refused (``"reject"``), or sent as it is, its stream
            ended when the default is used up (``"watch"``; plain calls and reasoning models are given a ceiling).
        open_bound: for requests whose input has no bound on this side: hold the model's ``"context_window"``,
            ``"reject"`` them, or admit them and record any excess (``"overrun"``).
        alerts: parts of the limit, such as ``[0.5, 0.8, 1.0]``: each is said once, in the log and to sinks, for every
            account and window, when that much is spent; ``1.0`` also when the first call is denied.
        update: change the terms of a named budget that exists with others, for everyone who names it.

    Raises ValueError naming the field; ConfigError (when entered) if the name exists with other terms.
    """
    unsaid = (usd, tokens, requests, concurrency, per, downgrade, scope, default_output_tokens) == (None,) * 8
    usual = (on_exceed, min_output_tokens, wait_seconds, uncapped, open_bound) == (
        "block", 16, 30, "inject", "context_window",
    )  # fmt: skip
    if isinstance(name, str) and name.strip() and unsaid and usual and not each and not update:
        return BudgetHandle(Budget(name), label=description)
    terms = make_budget(
        name,
        usd=usd,
        tokens=tokens,
        requests=requests,
        concurrency=concurrency,
        per=per,
        on_exceed=on_exceed,
        downgrade=downgrade,
        scope=scope,
        each=each,
        description=description,
        min_output_tokens=min_output_tokens,
        default_output_tokens=default_output_tokens,
        wait_seconds=wait_seconds,
        uncapped=uncapped,
        open_bound=open_bound,
        alerts=alerts,
    )
    check_one_provider(terms.downgrade)
    handler = on_exceed if callable(on_exceed) else None
    return BudgetHandle(terms, update=update, label=description, handler=handler)
