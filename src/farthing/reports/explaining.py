"""
``explain(...)``: would this call pass, and if not, why and when?

Decided over the live balances; nothing is placed, counted or sent.

The rules are those of admission: what a call asks (:mod:`.asking`), what its lines say (``kernel.plan.evaluate``) and
what failing budgets do about it (:mod:`.exceeding`). Only where admission would act, this writes down what it would do.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..calls.admission import refused_by_fork
from ..calls.asking import Asked, asked_of
from ..calls.call import Call
from ..calls.exceeding import Consult, Downgrade, Wait, next_step
from ..errors import UnmeteredCall, UnpricedModel
from ..kernel.balances import Balances
from ..kernel.decision import ALLOWED, Decision, FailedLine, denial, line_figures, refusal, room_for_output
from ..kernel.money import usd_from_nano
from ..kernel.plan import Account, LineResult, Verdict, evaluate, line_result, make_plan
from ..kernel.scope import check_model
from ..kernel.window import datetime_from_ms
from ..runtime.ambient import Ambient, current
from ..runtime.default import runtime
from ..runtime.in_force import InForce, in_force
from ..runtime.runtime import Runtime
from ..stores.contract import Ticket
from ..wire import json
from ..wire.facts import Dialect
from ..wire.recognise import recognise

_HOST = "explained"
"""Stands for the provider's own host, where only the route and the provider matter."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    What would become of one call now. ``str()`` is for people, :meth:`to_dict` for JSON.

    ``decision`` has the evidence of a denial: the tightest failing line first, every other one under ``failed``.
    """

    allowed: bool
    decision: Decision
    model: str
    """The model that it would be sent to: another than was asked for where a budget downgrades it."""
    input_tokens: int | None = None
    """The most input that would be held; None where nothing would be."""
    output_tokens: int | None = None
    """The output per choice that would be held: lower than was asked where a budget clamps it."""
    usd: Decimal | None = None
    """What would be held in USD; None without a known price."""
    budgets: tuple[str, ...] = ()
    """Every budget that binds the call."""
    steps: tuple[str, ...] = ()
    """What modes would do before the answer: downgrade, clamp, wait, ask a function."""
    tightest: FailedLine | None = None
    """The account with the least room, also where the call passes; None where no budget limits it."""
    shadow: tuple[FailedLine, ...] = ()
    """What budgets with on_exceed="warn" would have denied."""
    refused_by: str | None = None
    """The error that the caller would get; None where the call passes."""
    passes_at: datetime | None = None
    """When it would pass by itself, if nothing else is spent until then; None if it passes now, or if nobody knows."""
    passes: str = "It would pass now."
    """The same in one sentence, with what to do where time alone does not help."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: USD as decimal strings, instants as ISO 8601."""
        return {
            "allowed": self.allowed,
            "decision": self.decision.to_dict(),
            "model": self.model,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "usd": None if self.usd is None else format(self.usd, "f"),
            "budgets": list(self.budgets),
            "steps": list(self.steps),
            "tightest": None if self.tightest is None else self.tightest.to_dict(),
            "shadow": [line.to_dict() for line in self.shadow],
            "refused_by": self.refused_by,
            "passes_at": None if self.passes_at is None else self.passes_at.isoformat(),
            "passes": self.passes,
        }

    def __str__(self) -> str:
        return "\n".join(("allowed" if self.allowed else "denied", *self.steps, *self._why(), self.passes))

    def _why(self) -> list[str]:
        if self.allowed:
            return [] if self.tightest is None else [f"tightest: {self.tightest.figures_text()}"]
        return [line.figures_text() for line in self.decision.failed] or [self.decision.message()]


def explain(
    model: str,
    messages: str | Sequence[Any],
    *,
    provider: str | None = None,
    max_output_tokens: int | None = None,
    **request: Any,
) -> Explanation:
    """
    Would this call pass the budgets in force here, and if not, why and when? No call is made, and nothing is held.

    Args:
        model: as the SDK names it.
        messages: the messages (Gemini: the contents), or a text.
        provider: the price table's id, where the model's name alone does not say which API is meant.
        max_output_tokens: the output ceiling, whatever this provider calls it.
        request: other fields of the request, as the provider names them: ``n=3``, ``tools=[…]``, ``system="…"``.

    Raises ValueError naming the field; StoreUnavailable.
    """
    call = call_for(
        runtime(), current(), model, messages, provider=provider, max_output_tokens=max_output_tokens, request=request
    )
    return explain_call(call)


def call_for(
    here: Runtime,
    ambient: Ambient,
    model: str,
    messages: str | Sequence[Any],
    *,
    provider: str | None = None,
    max_output_tokens: int | None = None,
    request: Mapping[str, Any] | None = None,
    input_tokens: int | None = None,
) -> Call:
    """The call that would be made. *input_tokens* stands for the messages, where only their number is known."""
    here.prices.check_provider(provider, model, at_ms=here.memory_store.now())
    dialect, body, path = _request(model, messages, provider, request or {})
    facts = dialect.read_request(body, path)
    if max_output_tokens is not None:
        if type(max_output_tokens) is not int or max_output_tokens < 1:
            raise ValueError(f"max_output_tokens must be an integer of at least 1, not {max_output_tokens!r}")
        facts = dialect.read_request(dialect.rewrite(facts, output_ceiling=max_output_tokens), path)
    if input_tokens is not None:
        if type(input_tokens) is not int or input_tokens < 0:
            raise ValueError(f"input_tokens must be an integer of at least 0, not {input_tokens!r}")
        facts = facts.but(text=(), images=(), overhead_tokens=input_tokens)
    return Call(here, dialect, facts, ambient, path)


def explain_call(call: Call) -> Explanation:
    """The same for a call that a door has read. Waits for the ledger; in an event loop use :func:`explain_async`."""
    call.runtime.housekeeper.catch_up()
    steps = _explaining(call)
    try:
        ticket = next(steps)
        while True:
            ticket = steps.send(ticket.result())
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def explain_async(call: Call) -> Explanation:
    """:func:`explain_call` for a door that lives in an event loop."""
    steps = _explaining(call)
    try:
        ticket = next(steps)
        while True:
            ticket = steps.send(await ticket)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


Explaining = Generator[Ticket[Any], Any, Explanation]


def _explaining(call: Call) -> Explaining:
    here = call.runtime
    model = call.request.model
    tried: set[str] = set()
    steps: list[str] = []
    while True:
        bound = in_force(here, call.ambient, model, call.request.provider)
        if bound.inherited is not None:
            return _refused(model, refused_by_fork(bound.inherited), steps, ())
        titles = bound.strictest.titles
        if not bound.budgets:
            return Explanation(True, ALLOWED, model, steps=tuple(steps), passes="No budget binds it: it would pass.")
        try:
            asked = asked_of(call, model, bound.strictest)
        except (UnpricedModel, UnmeteredCall) as error:
            decision = refusal(budget=error.budget or "", remedy=str(error))
            return _refused(model, decision, steps, titles, error=type(error).__name__)
        if isinstance(asked, Decision):
            return _refused(model, asked, steps, titles)
        verdict, results = yield from _evaluated(asked, bound)
        now_ms = here.memory_store.now()
        if not verdict.failed:
            return _allowed(model, asked, verdict, results, tuple(steps), titles, now_ms)
        if asked.countable:
            call.exact = True
            continue
        tried.add(model)
        match next_step(verdict.failed, model=model, tried=tried, now_ms=now_ms):
            case Downgrade(cheaper, by):
                steps.append(f"downgraded: {model} → {cheaper}, by budget {by.title!r}")
                model = cheaper
                continue
            case Consult(_):
                steps.append(f"asks the function of budget {_title_of(verdict.failed, 'callable')!r}")
            case Wait(_, seconds):
                title = _title_of(verdict.failed, "wait")
                steps.append(f"waits in the line of budget {title!r}, at most {seconds:g} s")
            case _:
                pass
        return _denied(model, verdict, tuple(steps), titles, now_ms)


def _evaluated(asked: Asked, bound: InForce) -> Generator[Ticket[Any], Any, tuple[Verdict, list[LineResult]]]:
    """What the lines of both ledgers say together, and every line with what it saw, at what was granted."""
    accounts: list[Account] = []
    balances: dict[str, Balances] = {}
    for side in (bound.here, bound.there):
        if side is None:
            continue
        of_ledger = side.accounts(asked.ask.facts.price is not None)
        accounts += of_ledger
        keys = {key for account in of_ledger for key in account.keys}
        balances.update((yield side.ledger.store.balances(keys)))
    plan = make_plan(asked.ask, accounts)
    verdict = evaluate(plan, balances.__getitem__)
    results = [line_result(line, plan.facts, balances.__getitem__, verdict.x) for line in plan.lines]
    return verdict, results


def _allowed(
    model: str,
    asked: Asked,
    verdict: Verdict,
    results: list[LineResult],
    steps: tuple[str, ...],
    titles: tuple[str, ...],
    now_ms: int,
) -> Explanation:
    facts = asked.ask.facts
    if verdict.x < asked.ask.x_want:
        narrow = min((result for result in results if result.line.elastic), key=room_for_output)
        manner = "given an output ceiling of" if asked.output.injected else "clamped to"
        steps += (f"{manner} {verdict.x:,} tokens: all that fits in budget {narrow.line.budget.title!r}",)
    elif asked.output.injected:
        steps += (f"given an output ceiling of {verdict.x:,} tokens, because the request has none",)
    counted = [result for result in results if result.line.keys and not result.line.advisory]
    tightest = min(counted, key=_share_left, default=None)
    return Explanation(
        True,
        ALLOWED,
        model,
        input_tokens=facts.input_tokens,
        output_tokens=verdict.x,
        usd=None if facts.price is None else usd_from_nano(facts.price.at(verdict.x)),
        budgets=titles,
        steps=steps,
        tightest=None if tightest is None else line_figures(tightest, now_ms)._replace(remedy=""),
        shadow=_shadow(verdict, now_ms),
    )


def _denied(model: str, verdict: Verdict, steps: tuple[str, ...], titles: tuple[str, ...], now_ms: int) -> Explanation:
    decision = denial(verdict.failed, now_ms=now_ms)
    passes_at, passes = _when(verdict.failed, now_ms)
    return Explanation(
        False,
        decision,
        model,
        budgets=titles,
        steps=steps,
        tightest=decision.failed[0],
        shadow=_shadow(verdict, now_ms),
        refused_by="BudgetExceeded",
        passes_at=passes_at,
        passes=passes,
    )


def _refused(
    model: str,
    decision: Decision,
    steps: list[str],
    titles: tuple[str, ...],
    *,
    error: str = "BudgetExceeded",
) -> Explanation:
    """Refused by a policy that no figure explains."""
    never = "It would not pass by itself."
    return Explanation(False, decision, model, budgets=titles, steps=tuple(steps), refused_by=error, passes=never)


def _when(failed: tuple[LineResult, ...], now_ms: int) -> tuple[datetime | None, str]:
    """When all the lines that fail now would hold, as far as time alone brings it about."""
    opens_ms = now_ms
    in_flight = False
    for result in failed:
        line, balance = result.line, result.balance
        if not line.frozen and not line.spent_only and balance.total - balance.held + result.asked <= line.ceiling:
            in_flight = True
            continue
        figures = line_figures(result, now_ms)
        if figures.retry_after_seconds is None:
            return None, f"It would not pass by itself. {figures.remedy}"
        opens_ms = max(opens_ms, now_ms + round(figures.retry_after_seconds * 1000))
    if opens_ms == now_ms:
        return None, "It would pass once calls in flight have settled."
    at = datetime_from_ms(opens_ms)
    also = " and calls in flight have settled" if in_flight else ""
    return at, f"It would pass at {at:%Y-%m-%d %H:%M:%S} UTC, if nothing else is spent until then{also}."


def _share_left(result: LineResult) -> Fraction:
    """How much of its limit a line has left after this call: compares lines of different units."""
    line = result.line
    return Fraction(line.ceiling - result.balance.total - result.asked, max(1, line.ceiling))


def _shadow(verdict: Verdict, now_ms: int) -> tuple[FailedLine, ...]:
    return tuple(line_figures(result, now_ms) for result in verdict.advisory)


def _title_of(failed: tuple[LineResult, ...], mode: str) -> str:
    return next(result.line.budget.title for result in failed if result.line.budget.on_exceed == mode)


def _request(
    model: str, messages: str | Sequence[Any], provider: str | None, fields: Mapping[str, Any]
) -> tuple[Dialect, bytes, str]:
    """The request that an SDK would send, and the dialect that reads it."""
    check_model(model)
    plain = model.rpartition("models/")[2].lower()
    if provider is None:
        provider = "anthropic" if plain.startswith("claude") else "google" if plain.startswith("gemini") else "openai"
    if provider == "google":
        path = f"/v1beta/models/{model.rpartition('models/')[2]}:generateContent"
        contents = messages if isinstance(messages, str) else list(messages)
        body = {"contents": [{"parts": [{"text": contents}]}] if isinstance(contents, str) else contents, **fields}
    else:
        path = "/v1/messages" if provider == "anthropic" else "/v1/chat/completions"
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        body = {"model": model, "messages": said, **fields}
    found = recognise("POST", _HOST, path, known_hosts={_HOST: provider})
    if found.dialect is None:
        raise ValueError(f"provider={provider!r}: chat with it is not metered ({found.reason})")
    return found.dialect, json.encode(body), path
