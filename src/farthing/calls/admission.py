"""
Admission: identify, plan, hold. The first half of the life of a call.

A call holds on memory and on at most one durable ledger, all or nothing: memory first, then durable with at most the
output that memory granted, then memory shrinks to what durable granted. If durable refuses, memory is voided; if memory
refuses, the durable lines are still read, so that the denial names every budget that said no.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

from ..errors import BudgetExceeded, StoreUnavailable
from ..kernel.budget import Budget
from ..kernel.decision import Decision, denial, refusal
from ..kernel.ledger import Denied, Placed, Stale
from ..kernel.plan import Account, Ask, LineResult, Plan, evaluate, make_plan
from ..stores.contract import Ticket
from .asking import Asked, Terms, ask_for, find_rates
from .call import Call
from .ledgers import Ledger
from .runtime import Runtime, UnpricedModelWarning, log

REPLANS_MAX = 100
"""How often a plan may be found stale. Each time the catalogue or a window really changed, so this is never reached."""


class Granted(NamedTuple):
    """The holds of one call: ``x`` output tokens per choice, on these ledgers, under this id."""

    id: str
    x: int
    held: tuple[tuple[Ledger, tuple[Account, ...]], ...]
    advisory: tuple[LineResult, ...]


class Admitted(NamedTuple):
    """A call that may be sent. Without budgets ``granted`` is None, and nothing was held."""

    model: str
    asked: Asked | None
    granted: Granted | None

    @property
    def ceiling(self) -> int | None:
        """The output ceiling that has to go on the wire, or None where the caller's request says it already."""
        if self.asked is None or self.granted is None:
            return None
        lowered = self.granted.x < self.asked.ask.x_want
        return self.granted.x if lowered or self.asked.injected else None


Steps = Generator[Ticket[Any], Any, Any]


def admit(call: Call) -> Generator[Ticket[Any], Any, Admitted]:
    """
    Place every hold that this call needs, or raise what says why not: BudgetExceeded, UnpricedModel, UnmeteredCall,
    StoreUnavailable. Nothing is held then.
    """
    runtime = call.runtime
    inherited = runtime.inherited(call.ambient)
    if inherited is not None:
        raise BudgetExceeded(_inherited(inherited))
    model = call.request.model
    tries = 0
    while True:
        tags = call.scope_tags(model)
        here, there = runtime.budgets(call.ambient, tags)
        if not here and not there:
            return Admitted(model, None, None)
        asked = _ask(call, model, [*here, *there])
        if isinstance(asked, Decision):
            raise _denied(call, model, asked)
        answer = yield from hold(runtime, asked.ask, here, there, tags, tries=tries)
        if isinstance(answer, Granted):
            _say_advisory(call, model, answer.advisory)
            return Admitted(model, asked, answer)
        cheaper = _downgraded(answer, model)
        if cheaper is None:
            raise _denied(call, model, denial(answer, now_ms=runtime.memory_store.now()))
        log.info("downgrade: %s → %s for call %s (%s)", model, cheaper, call.id, answer[0].line.budget.title)
        model = cheaper
        tries += REPLANS_MAX


def hold(
    runtime: Runtime, ask: Ask, here: list[Budget], there: list[Budget], tags: dict[str, str], *, tries: int = 0
) -> Generator[Ticket[Any], Any, Granted | tuple[LineResult, ...]]:
    """Hold on both ledgers or on neither: what was granted, or all lines that failed."""
    for again in range(REPLANS_MAX):
        # An id names one plan for ever, and memory may have placed (and voided) an earlier one.
        ask = ask._replace(id=_numbered(ask.id, tries + again))
        answer = yield from _hold_once(runtime, ask, here, there, tags)
        if not isinstance(answer, Stale):
            return answer
    raise StoreUnavailable(
        runtime.main.store.name, f"its budgets changed {REPLANS_MAX} times while one call was planned"
    )


def _hold_once(
    runtime: Runtime, ask: Ask, here: list[Budget], there: list[Budget], tags: dict[str, str]
) -> Generator[Ticket[Any], Any, Granted | tuple[LineResult, ...] | Stale]:
    memory, durable = runtime.memory, runtime.durable
    held: list[tuple[Ledger, tuple[Account, ...]]] = []
    advisory: tuple[LineResult, ...] = ()
    x = ask.x_want
    if here:
        accounts = _accounts(memory, ask, here, tags)
        plan = make_plan(ask, accounts, catalogue_version=memory.catalogue.version)
        placed = yield from _place(memory, plan)
        if isinstance(placed, Stale):
            return placed
        if isinstance(placed, Denied):
            others = yield from _failing(durable, ask, there, tags)
            return placed.failed + others
        held.append((memory, accounts))
        advisory, x = placed.advisory, placed.hold.x
    if there and durable is not None:
        try:
            accounts = _accounts(durable, ask, there, tags)
            plan = make_plan(ask, accounts, catalogue_version=durable.catalogue.version)._replace(x_most=x)
            placed = yield from _place(durable, plan)
        except BaseException as error:
            if here:
                yield memory.store.void(ask.id)
            if not isinstance(error, StoreUnavailable) or runtime.settings.on_store_failure != "allow":
                raise
            log.error("%s; the call goes out without a durable hold (on_store_failure='allow')", error)
            return (
                (yield from _hold_once(runtime, ask._replace(id=f"{ask.id}m"), here, [], tags))
                if here
                else Granted(ask.id, x, (), ())
            )
        if not isinstance(placed, Placed):
            if here:
                yield memory.store.void(ask.id)
            return placed if isinstance(placed, Stale) else placed.failed
        if here and placed.hold.x < x:
            yield memory.store.resize(ask.id, x=placed.hold.x)
        held.append((durable, accounts))
        advisory, x = advisory + placed.advisory, placed.hold.x
    return Granted(ask.id, x, tuple(held), advisory)


def _accounts(ledger: Ledger, ask: Ask, budgets: list[Budget], tags: dict[str, str]) -> tuple[Account, ...]:
    """The accounts to hold on. A call that was let through without a price (``tokens_only``) is not held in USD."""
    accounts = ledger.accounts(budgets, tags, ledger.store.now())
    if ask.facts.price is not None:
        return accounts
    return tuple(
        account._replace(limits=tuple(limit for limit in account.limits if limit[0] != "usd")) for account in accounts
    )


def _place(ledger: Ledger, plan: Plan) -> Generator[Ticket[Any], Any, Placed | Denied | Stale]:
    placed: Placed | Denied | Stale = yield ledger.store.place(plan)
    if isinstance(placed, Stale) and placed.catalogue_version != ledger.catalogue.version:
        ledger.refresh((yield ledger.store.catalogue()))
    return placed


def _failing(
    ledger: Ledger | None, ask: Ask, budgets: list[Budget], tags: dict[str, str]
) -> Generator[Ticket[Any], Any, tuple[LineResult, ...]]:
    """The lines of the durable ledger that would fail too; nothing is placed."""
    if ledger is None or not budgets:
        return ()
    plan = make_plan(ask, _accounts(ledger, ask, budgets, tags))
    try:
        balances = yield ledger.store.balances({key for line in plan.lines for key in line.keys})
    except StoreUnavailable as error:
        log.warning("%s; the denial names the budgets in memory only", error)
        return ()
    return evaluate(plan, balances.__getitem__).failed


def _ask(call: Call, model: str, budgets: list[Budget]) -> Asked | Decision:
    runtime = call.runtime
    now_ms = call.started_ms
    provider = call.request.provider
    rates = find_rates(runtime.prices, model=model, provider=provider, at_ms=now_ms, price_as=runtime.settings.price_as)
    if rates is None:
        warn_unpriced(runtime, model)
    return ask_for(
        call.request,
        Terms.of(budgets),
        call_id=call.id,
        model=model,
        rates=rates,
        tags=tuple(call.tags.items()),
        titles=tuple(budget.title for budget in budgets),
        deadline_ms=call.deadline_ms(now_ms),
        unpriced=runtime.settings.unpriced,
        url=str(call.url) if call.request.open_reasons else "",
    )


def warn_unpriced(runtime: Runtime, model: str) -> None:
    """Say once per model that its cost is unknown."""
    message = (
        f"no price is known for model {model!r}: its tokens are counted, its cost is not. "
        f"Name it with farthing.prices.register({model!r}, input=…, output=…)."
    )
    runtime.warn_once(f"unpriced:{model}", UnpricedModelWarning, message)


def _downgraded(failed: tuple[LineResult, ...], model: str) -> str | None:
    """The cheaper model that every failing budget which downgrades would take, if only such (or clamps) failed."""
    cheaper: str | None = None
    for result in failed:
        budget = result.line.budget
        if budget.on_exceed == "clamp":
            continue
        if budget.on_exceed != "downgrade" or result.line.frozen:
            return None
        mapped = dict(budget.downgrade).get(model)
        if mapped is None:
            return None
        cheaper = cheaper or mapped
    return cheaper


def _denied(call: Call, model: str, decision: Decision) -> BudgetExceeded:
    call.runtime.count_denial(
        budget=decision.budget or "",
        unit=decision.unit,
        model=model,
        provider=call.request.provider,
        tags=dict(call.tags),
        shadow=False,
    )
    return BudgetExceeded(decision)


def _say_advisory(call: Call, model: str, advisory: tuple[LineResult, ...]) -> None:
    for result in advisory:
        budget = result.line.budget
        log.warning("budget %r (on_exceed='warn') would have denied call %s", budget.title, call.id)
        call.runtime.count_denial(
            budget=budget.title,
            unit=result.line.unit,
            model=model,
            provider=call.request.provider,
            tags=dict(call.tags),
            shadow=True,
        )


def _inherited(budget: Budget) -> Decision:
    if budget.anonymous:
        remedy = (
            f"budget {budget.title!r} was entered before this process was forked, and its account is in the parent's "
            "memory: to share it between processes, name it and configure(ledger=…)."
        )
    else:
        remedy = (
            f"budget {budget.title!r} was entered before this process was forked, and its ledger is in the parent's "
            "memory: configure(ledger=…) gives all processes one account."
        )
    return refusal(budget=budget.title, remedy=remedy)


def _numbered(call_id: str, number: int) -> str:
    base = call_id.partition(".")[0]
    return base if number == 0 else f"{base}.{number}"
