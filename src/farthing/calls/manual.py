"""
Holding and recording without an SDK: for calls that farthing does not see, and for usage that was paid elsewhere.

One file, for both take the same words from a caller (tokens, USD, a model, a usage) and end in the same outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from dataclasses import replace
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

from ..errors import BudgetExceeded, HoldError, StoreUnavailable, UnpricedModel
from ..kernel.decision import denial
from ..kernel.hold import Entry, Outcome, paid
from ..kernel.money import count_of, nano_from_usd
from ..kernel.plan import Ask, CallFacts, Formula, empty_plan, make_plan
from ..kernel.scope import check_own, check_tags
from ..kernel.usage import Usage
from ..prices import Rates
from ..runtime.ambient import Ambient, current
from ..runtime.default import runtime
from ..runtime.events import Who
from ..runtime.in_force import InForce, in_force
from ..runtime.runtime import Runtime, log
from ..stores.contract import Store
from ..wire.reported import usage_from
from .admission import Terms, consulted, in_line, refused_by_fork, waited, warn_unpriced
from .asking import find_rates
from .endings import at_least_priced
from .exceeding import Consult, Deny, Wait, next_step
from .holding import Granted, as_open_now, give_back
from .holding import hold as place_hold
from .last_words import crossed_by
from .lending import exceeded, measured
from .steps import Finished, Life, advance, advance_async
from .telling import say_advisory, say_denied, say_ended

HOLD_MS = 24 * 3_600_000
"""How long a hold made by hand may stay open before it is suspect."""


class ManualHold:
    """
    What :func:`hold` returns: a context manager (sync and async). Leaving it without :meth:`settle` or :meth:`void`
    settles at what was held, on an exception too: what may have been spent is never forgotten.

    What does not fit is denied, waits, or is asked about, as the budgets say (``on_exceed``). Its size and its model
    are the caller's: no budget clamps or downgrades it. Under ``on_exceed="raise"`` settling raises BudgetExceeded if
    it crossed the limit; it is counted all the same.

    Each `with` of it is one call, with an id of its own. It can be entered again when it was left, not before: two
    calls at once need two of them.
    """

    def __init__(self, facts: CallFacts, rates: Rates | None, said: frozenset[str]) -> None:
        self._facts = facts
        self._said = said
        """The units of which it was said how much can be used. Of another nobody knows, and that is not zero."""
        self._rates = rates
        self._granted: Granted | None = None
        self._ended = False
        self._entered = threading.Lock()
        self._ids = 0
        self.id = runtime().new_id()

    # -- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._begin()
        try:
            advance(self._place())
        except BaseException:  # a refusal, a cancelled task, a signal: it may be entered again
            self._take_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if not self._ended:
                self._end(self._at_hold(), void=False, raises=kind is None)
        finally:
            self._entered.release()

    async def __aenter__(self) -> Self:
        self._begin()
        try:
            await advance_async(self._place())
        except BaseException:  # a refusal, a cancelled task, a signal: it may be entered again
            self._take_back()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def settle(
        self, usage: Usage | Mapping[str, Any] | object = None, *, tokens: int | None = None, usd: Any = None
    ) -> None:
        """
        Replace the hold by what the call really cost; the rest goes back.

        Args:
            usage: a :class:`farthing.Usage`, a mapping with ``input_tokens output_tokens cached_tokens
                cache_write_tokens reasoning_tokens`` (provider style: cached tokens are part of the input), or an SDK's
                usage object. Priced with the hold's model, if it has one.
            tokens: instead of *usage*: the number of tokens.
            usd: the cost in USD, if you know it better than the price table. Without it, and without a model whose
                price is known, the cost is what was held.
        """
        figure = _figure(usage, tokens)
        if figure is None and usd is None:
            self._end(self._at_hold(), void=False)
            return
        outcome = _outcome(figure or Usage(), self._rates, usd)
        self._end(at_least_priced(outcome, self._facts, 0), void=False)

    def void(self) -> None:
        """Give everything back: the call certainly cost nothing."""
        self._end(Outcome(cost_nano=0, ending="void"), void=True)

    # -- inside --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._entered.acquire(blocking=False):
            raise ValueError("this hold is open already, and stands for one call: make another with hold(…)")
        if self._ids:
            # An id names one hold for ever: a ledger would answer with the first one, and hold nothing.
            self.id = runtime().new_id()
        self._ids += 1
        self._granted, self._ended = None, False

    def _take_back(self) -> None:
        """It was not entered after all: a denial, or an exception on the way in, perhaps of a signal."""
        if self._granted is not None:
            give_back(self._granted)
        self._entered.release()

    def _place(self) -> Life:
        here = runtime()
        here.housekeeper.catch_up()
        ambient = current()
        who = {"model": self._facts.model or "", "provider": self._facts.provider or ""}
        bound = in_force(here, ambient, **who)
        if bound.inherited is not None:
            raise BudgetExceeded(refused_by_fork(bound.inherited))
        budgets = bound.budgets
        usd_budget = next((budget for budget in budgets if budget.usd_nano is not None), None)
        if usd_budget is not None and self._facts.price is None and here.settings.unpriced == "reject":
            if self._facts.model is None:
                raise ValueError(
                    f"usd: budget {usd_budget.title!r} counts USD, so say what to hold: give usd= or model="
                )
            raise UnpricedModel(self._facts.model, budget=usd_budget.title)
        for unit, counts, give in (("tokens", "tokens", "tokens="), ("usd", "USD", "usd=, or tokens= and model=")):
            title = next((of.title for of in budgets if unit not in self._said and of.limit(unit) is not None), None)
            if title is not None:
                raise ValueError(f"{unit}: budget {title!r} counts {counts}, so say what to hold: give {give}")
        facts = self._facts._replace(
            tags=tuple(dict(ambient.tags).items()), budgets=tuple(budget.title for budget in budgets)
        )
        self._facts = facts
        now_ms = here.memory_store.now()
        ask = Ask(self.id, facts, 0, 0, now_ms + HOLD_MS)
        self._granted = yield from self._admitted(here, ask, ambient, **who)
        self.id = self._granted.id
        say_advisory(here, self._who(), self._granted.advisory)
        return Finished()

    def _admitted(
        self, here: Runtime, ask: Ask, ambient: Ambient, *, model: str, provider: str
    ) -> Generator[Any, Any, Granted]:
        """Hold it, after what the failing budgets do before they deny; raises their denial."""
        terms = Terms(model)
        try:
            while True:
                bound = in_force(here, ambient, model, provider)
                if (terms.place is not None or here.line.waiting) and (yield from in_line(here, terms, bound)):
                    continue
                answer = yield from place_hold(here, ask, ambient, model, provider)
                if isinstance(answer, Granted):
                    return answer
                now_ms = here.memory_store.now()
                decision = denial(answer, now_ms=now_ms)
                step = next_step(answer, model=terms.model, consulted=terms.consulted, now_ms=now_ms)
                again = False
                if isinstance(step, Wait):
                    again = yield from waited(here, terms, step)
                elif isinstance(step, Consult):
                    terms.consulted += (step.budget,)
                    # On whatever terms: they are not ours to change, but it may have made room.
                    again = consulted(ambient, step.budget, decision) is not None
                if not again:
                    say_denied(here, self._who(), decision, answer)
                    truncates = step.truncates if isinstance(step, Deny) else frozenset[str]()
                    raise exceeded(decision, answer, ambient, truncates=truncates)
                ask = ask._replace(id=here.new_id())
        finally:
            if terms.place is not None:
                terms.place.leave()

    def _who(self) -> Who:
        return Who(self.id, self._facts.model or "", self._facts.provider or "", dict(self._facts.tags))

    def _at_hold(self) -> Outcome:
        usage = Usage(input=self._facts.input_tokens)
        cost_nano = None if self._facts.price is None else self._facts.price.at(0)
        return paid(usage, cost_nano, source="estimate")

    def _end(self, outcome: Outcome, *, void: bool, raises: bool = True) -> None:
        if self._granted is None:
            raise ValueError("this hold was never placed: use it in a `with`")
        # From here on its end has been said: leaving the `with` must not say another.
        again, self._ended = self._ended, True
        here, granted = runtime(), self._granted
        advance(end_held(here, granted, self._facts, outcome, void=void, again=again))
        if void:
            return
        finished = advance(self._crossed(here, granted, outcome))
        if raises and isinstance(finished, Finished) and finished.crossed is not None:
            raise BudgetExceeded(finished.crossed)

    def _crossed(self, here: Runtime, granted: Granted, outcome: Outcome) -> Life:
        return Finished((yield from crossed_by(here, granted, self._who(), outcome.amounts)))


def end_held(
    here: Runtime, granted: Granted, facts: CallFacts, outcome: Outcome, *, void: bool = False, again: bool = False
) -> Life:
    """
    End what was held for a call, on every ledger; where nothing was held it is recorded. *again*: its caller has said
    an end before, and is to hear if this is another.
    """
    stores: list[Store] = [ledger.store for ledger in (here.memory, here.durable) if ledger is not None]
    held = as_open_now(granted.stores, tuple(stores))
    plan = empty_plan(granted.id, facts, here.memory_store.now())
    entry: Entry | None = None
    for store in dict.fromkeys((*stores, *held)):
        try:
            if store not in held:
                settled = yield store.record(plan._replace(postings=granted.unheld_postings(store)), outcome)
            elif void:
                settled = yield store.void(granted.id, outcome)
            else:
                settled = yield store.settle(granted.id, outcome)
            # None, if it ends while nobody can wait.
            entry = entry if settled is None else settled.entry or entry
        except StoreUnavailable as error:
            # As for a call of an SDK: the other ledger still learns of it, and what was held here stays counted.
            log.error("hold %s could not be ended: %s; what it held stays counted", granted.id, error)
        except HoldError as error:
            # The same. The ledger knows the hold no more, or somebody has resolved it meanwhile.
            if again:
                raise
            log.error("hold %s ended, and its ledger stays as it is: %s. It ended with %r", granted.id, error, outcome)
    say_ended(here, entry, granted.held + granted.unheld)
    return Finished()


def hold(
    *,
    tokens: int | None = None,
    usd: Decimal | int | float | None = None,
    model: str | None = None,
    provider: str | None = None,
) -> ManualHold:
    """
    Hold an amount on every budget in force here, for a call that farthing does not see::

        with hold(tokens=2_000, model="gpt-4o") as h:
            answer = my_own_client(prompt)
            h.settle(answer.usage)

    Args:
        tokens: the most tokens that the call can use.
        usd: the most that it can cost. Without it, *tokens* at the dearest rate of *model*.
        model: prices *tokens* here and the usage at :meth:`~ManualHold.settle`.
        provider: whose model it is, as the price table names it (``azure``), where the name alone does not say; it
            stands in reports, and scopes may name it.

    Raises (on entering) BudgetExceeded; ValueError if a budget counts tokens and *tokens* is not given, or USD and
    neither *usd* nor *tokens* with a *model* is; UnpricedModel if the model has no known price (see
    ``configure(unpriced=…)``). ValueError naming the field.
    """
    said = frozenset(
        unit for unit, given in (("tokens", tokens), ("usd", tokens if usd is None else usd)) if given is not None
    )
    tokens = 0 if tokens is None else count_of(tokens, field="tokens")
    here = runtime()
    rates = _rates(model, provider)
    price: Formula | None = None
    if usd is not None:
        price = Formula(nano_from_usd(usd, field="usd"))
    elif rates is not None:
        as_input = rates.bound(input_tokens=tokens, writes_cache=True, cache_1h=True)
        # Nobody said which of them are output: all at the dearer rate.
        price = Formula(max(as_input.base, as_input.slope * tokens), 0, as_input.den)
    elif model is not None:
        warn_unpriced(here, model)
    facts = CallFacts(
        model=model,
        provider=_provider(provider, rates),
        dialect="manual",
        input_tokens=tokens,
        price=price,
        price_version=None if rates is None else rates.version,
    )
    return ManualHold(facts, rates, said)


def record(
    usage: Usage | Mapping[str, Any] | object,
    *,
    model: str | None = None,
    provider: str | None = None,
    usd: Any = None,
    **tags: object,
) -> None:
    """
    Write a call that was paid elsewhere: it counts on every budget in force here, whatever their limits say.

    Args:
        usage: as for :meth:`ManualHold.settle`.
        model: prices it; without one (or *usd*) its cost is unknown.
        provider: as for :func:`hold`.
        usd: what it cost, if you know it better than the price table.
        tags: added to the tags of the enclosing :class:`track`.

    Raises ValueError naming the argument, or a tag that a report uses itself.
    """
    here = runtime()
    check_own(tags)
    ambient = current().with_tags(check_tags(tags, field="record"))
    rates = _rates(model, provider)
    if rates is None and model is not None and usd is None:
        warn_unpriced(here, model)
    figure = _figure(usage, None) or Usage()
    outcome = _outcome(figure, rates, usd)
    whose = _provider(provider, rates)
    bound = in_force(here, ambient, model or "", whose or "")
    facts = CallFacts(
        model=model,
        provider=whose,
        dialect="record",
        tags=ambient.tags,
        budgets=bound.strictest.titles,
        input_tokens=figure.total_tokens,
        price=None if outcome.cost_nano is None else Formula(outcome.cost_nano),
        price_version=None if rates is None else rates.version,
    )
    write_paid(here, bound, facts, outcome)


def write_paid(here: Runtime, bound: InForce, facts: CallFacts, outcome: Outcome) -> None:
    """Write a call that is paid on every budget in force, whatever their limits say."""
    ask = Ask(here.new_id(), facts, 0, 0, here.memory_store.now())
    entry: Entry | None = None
    counted = []
    for ledger, side in ((here.memory, bound.here), (here.durable, bound.there)):
        if ledger is None:
            continue
        accounts = () if side is None else side.accounts()
        unlimited = [replace(account, limits=()) for account in accounts]
        plan = make_plan(ask, unlimited, catalogue_version=ledger.catalogue.version)
        try:
            entry = ledger.store.record(plan, outcome).result().entry or entry
        except StoreUnavailable as error:
            if here.settings.on_store_failure != "allow":
                raise
            log.error("%s (on_store_failure='allow')", error)
        counted.append((ledger, accounts))
    if bound.work is not None:
        measured(here, bound.work)
    say_ended(here, entry, counted)


def _provider(given: str | None, rates: Rates | None) -> str | None:
    return given or (None if rates is None else rates.provider)


def _rates(model: str | None, provider: str | None) -> Rates | None:
    if provider is not None and (not isinstance(provider, str) or not provider):
        raise ValueError(f"provider must be a name, not {provider!r}")
    if model is None:
        return None
    here = runtime()
    now_ms = here.memory_store.now()
    return find_rates(here.prices, here.settings, model=model, provider=provider, at_ms=now_ms)


def _figure(usage: object, tokens: int | None) -> Usage | None:
    if usage is not None and tokens is not None:
        raise ValueError("give usage or tokens, not both")
    if tokens is not None:
        return Usage(input=tokens)
    return None if usage is None else usage_from(usage)


def _outcome(usage: Usage, rates: Rates | None, usd: Any) -> Outcome:
    cost_nano = nano_from_usd(usd, field="usd") if usd is not None else rates.cost_nano(usage) if rates else None
    return paid(usage, cost_nano, source="provider")
