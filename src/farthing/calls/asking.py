"""
What a call asks for: its most input, its price, how much output it wants, from what its request says. Pure.

The size of a hold comes from :func:`ask_for`, and from nowhere else.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import tokens
from ..errors import UnmeteredCall, UnpricedModel
from ..kernel.balances import bare
from ..kernel.budget import OPEN_BOUND, UNCAPPED, Budget
from ..kernel.decision import Decision, refusal
from ..kernel.plan import Ask, CallFacts, Formula
from ..prices import PriceBook, Rates
from ..tokens import Family, ModelFacts, Weight
from ..wire.anthropic.messages import THREAD
from ..wire.facts import RequestFacts
from .call import History

DEFAULT_OUTPUT_TOKENS = 4_096


class Strictest(NamedTuple):
    """What the matching budgets say together: of several, the strictest."""

    hard: tuple[Budget, ...]
    counts_usd: Budget | None
    """A budget that limits money, or None."""
    breaks: bool
    """One of them ends a stream whose hold is used up."""
    uncapped: str
    open_bound: str
    min_output_tokens: int
    default_output_tokens: int | None
    titles: tuple[str, ...]
    """Of all of them, in order."""

    @classmethod
    def of(cls, budgets: list[Budget]) -> Strictest:
        hard = []
        counts_usd = default = None
        uncapped, open_bound, least = UNCAPPED[-1], OPEN_BOUND[-1], 1
        breaks = False
        for budget in budgets:
            if budget.usd_nano is not None:
                counts_usd = budget
            if not budget.hard:
                continue
            hard.append(budget)
            breaks = breaks or budget.on_exceed == "break"
            least = max(least, budget.min_output_tokens)
            if UNCAPPED.index(budget.uncapped) < UNCAPPED.index(uncapped):
                uncapped = budget.uncapped
            if OPEN_BOUND.index(budget.open_bound) < OPEN_BOUND.index(open_bound):
                open_bound = budget.open_bound
            own = budget.default_output_tokens
            if own is not None and (default is None or own < default):
                default = own
        if not hard:
            uncapped = "inject"
        titles = tuple(budget.title for budget in budgets)
        return cls(tuple(hard), counts_usd, breaks, uncapped, open_bound, least, default, titles)


STRICTEST_KEPT = 1_024
_kept: dict[tuple[int, ...], tuple[tuple[Budget, ...], Strictest]] = {}


def strictest_of(budgets: list[Budget]) -> Strictest:
    """``Strictest.of(budgets)``, looked at once for the same ones."""
    key = tuple(map(id, budgets))
    known = _kept.get(key)
    if known is None:
        if len(_kept) >= STRICTEST_KEPT:
            _kept.clear()
        # The budgets are kept beside their terms: as long as they are, no other object has their ids.
        known = _kept[key] = tuple(budgets), Strictest.of(budgets)
    return known[1]


class Asked(NamedTuple):
    """An ask, and what the rest of the call's life needs to know about how it was made."""

    ask: Ask
    rates: Rates | None
    model: ModelFacts
    injected: bool
    """A ceiling that the caller did not set goes on the wire: ours, or one that a callable allowed."""
    weight: Weight | None = None
    """What its input was counted as, where its usage may teach how dense this model's text is."""
    cut_margin: int | None = None
    """The stream is ended by us when its hold is used up, of which so many tokens are billed after the cut."""
    defaulted: bool = False
    """The ceiling is one that we chose: neither the caller nor the endpoint knows one."""
    watched: bool = False
    """No ceiling goes on the wire: the cut is all that bounds the output (``uncapped="watch"``)."""
    countable: bool = False
    """Long texts were bounded by their bytes: counted, they would ask for less."""
    told: bool = True
    """The ceiling is on the wire, or the endpoint's own."""


def input_bound(request: RequestFacts, model: str) -> int:
    """The most input tokens that the request's own content can be billed for."""
    return tokens.bound(request.text, model=model, overhead_tokens=request.overhead_tokens, images=request.images)


def find_rates(
    prices: PriceBook, *, model: str, provider: str | None, at_ms: int, price_as: str | None
) -> Rates | None:
    """The rates of a model, those of another by policy, or None where no price is known."""
    try:
        return prices.rates(model, provider=provider, at_ms=at_ms)
    except UnpricedModel:
        return prices.rates_as(price_as, model=model, at_ms=at_ms) if price_as else None


COUNTED_BYTES_MAX = 8 * 1024 * 1024
"""A larger request is no context window's, and is not counted to see whether it fits: that would stall its caller."""
_BY_HISTORY = ("previous_response_id", THREAD)
"""Why a request was open that the ledger can bound."""


def continued(request: RequestFacts, history: History, model: str) -> RequestFacts:
    """
    A request that goes on from an earlier answer, which brings in no more than that call's input and output. To another
    model it stays open: that one may count the same texts and images otherwise.
    """
    if history.model != model:
        return request
    reasons = tuple(reason for reason in request.open_reasons if reason not in _BY_HISTORY)
    return request._replace(open_reasons=reasons, overhead_tokens=request.overhead_tokens + history.tokens)


def ask_for(
    request: RequestFacts,
    strictest: Strictest,
    *,
    call_id: str,
    model: str,
    rates: Rates | None,
    tags: tuple[tuple[str, str], ...],
    titles: tuple[str, ...],
    deadline_ms: int,
    unpriced: str,
    url: str,
    allowed_output: int | None = None,
    exact: bool = False,
    family: Family | None = None,
    cut_margin: int | None = None,
) -> Asked | Decision:
    """
    What this request can cost at most with this model, or a denial by the strictest budget's policy. *allowed_output*
    is a lower output ceiling that a callable ``on_exceed`` named; *exact*: long texts are counted, not bounded by
    their bytes; *family* counts its text, where the ledger has learned better than the model's own; *cut_margin* is
    how many tokens a provider still bills after a cut, for a stream that can be cut.

    Raises UnpricedModel where a budget counts USD and the policy is ``reject``; UnmeteredCall where the input has no
    bound on this side and the policy is ``reject`` (or nothing is known that could bound it).
    """
    if rates is None and strictest.counts_usd is not None and unpriced == "reject":
        raise UnpricedModel(model, provider=request.provider, budget=strictest.counts_usd.title)
    known = tokens.facts_of(model, request.provider)
    family = family or tokens.family_of(model)
    weight = tokens.weigh(
        request.text, model=model, overhead_tokens=request.overhead_tokens, images=request.images, exact=exact
    )
    input_tokens = weight.bound(family)
    if request.open_reasons and strictest.hard:
        input_tokens = _open_input(request, strictest, known, input_tokens, url=url)
    ceiling = request.output_ceiling
    uncapped = ceiling is None and request.implied_ceiling is None and allowed_output is None
    # What a model reasons unseen, no cut could notice.
    seen = request.no_reasoning or not known.hidden_reasoning
    watched = uncapped and seen and strictest.uncapped == "watch" and cut_margin is not None
    if not strictest.breaks and not watched:
        cut_margin = None
    # A cut comes a margin before the hold's end, and what comes before it must be of use.
    floor = max(strictest.min_output_tokens, request.min_output_tokens) + (cut_margin or 0)
    injected = ours = False
    if allowed_output is not None:
        # A callable lowered it: it goes on the wire, and it is what is asked for now.
        ceiling, injected = min(allowed_output, ceiling or allowed_output), True
    elif ceiling is None:
        ceiling = request.implied_ceiling
        if ceiling is None:
            if strictest.hard and strictest.uncapped == "reject":
                return _reject_uncapped(strictest)
            ceiling = _default_output(known, strictest, input_tokens, least=1 if cut_margin is None else floor)
        # An implied one goes on the wire too: a compatible server may not keep to what the provider documents.
        ours = bool(strictest.hard)
        injected = ours and not watched
    told = injected or not uncapped
    price = None
    if rates is not None:
        bound = rates.bound(
            input_tokens=input_tokens,
            writes_cache=request.writes_cache,
            cache_1h=request.cache_1h,
            service_tier=request.service_tier,
            audio=bool(request.open_reasons),
            image=bool(request.images or request.open_reasons),
        )
        price = bare(Formula, (bound.base, bound.slope * request.choices, bound.den))
    facts = CallFacts.__new__(  # its own constructor, without the class's call around it: a third of the time
        CallFacts,
        model=model,
        provider=request.provider,
        dialect=request.dialect,
        tags=tags,
        budgets=titles,
        input_tokens=input_tokens,
        choices=request.choices,
        price=price,
        price_version=None if rates is None else rates.version,
        bound="proven" if told and not request.open_reasons else "open",
        asked_model=None if model == request.model else request.model,
        # Also where only a replay with other budgets will ever shrink it: these look on.
        ceiling_ours=request.output_ceiling is None and allowed_output is None,
    )
    ask = bare(Ask, (call_id, facts, ceiling, min(ceiling, floor), deadline_ms))
    teaches = tokens.learns(family) and not request.open_reasons
    countable = not exact and weight.by_bytes > 0 and request.body_bytes <= COUNTED_BYTES_MAX
    learned_from = weight if teaches else None
    return Asked(ask, rates, known, injected, learned_from, cut_margin, uncapped and ours, watched, countable, told)


def _open_input(request: RequestFacts, strictest: Strictest, known: ModelFacts, input_tokens: int, *, url: str) -> int:
    """The input to hold for a request whose input has no bound on this side."""
    if strictest.open_bound == "overrun":
        return input_tokens
    why = ", ".join(request.open_reasons)
    title = next(budget.title for budget in strictest.hard if budget.open_bound == strictest.open_bound)
    if strictest.open_bound == "reject":
        reason = f"its cost has no bound on this side ({why}) and the budget says open_bound='reject'"
        raise UnmeteredCall("POST", url, budget=title, reason=reason)
    if known.context is None:
        reason = (
            f"its cost has no bound on this side ({why}), and the context window of {request.model!r} is not known; "
            "open_bound='overrun' would admit it"
        )
        raise UnmeteredCall("POST", url, budget=title, reason=reason)
    return max(input_tokens, known.context)


def _default_output(known: ModelFacts, strictest: Strictest, input_tokens: int, *, least: int) -> int:
    """What a request without a ceiling may use: the budgets' own default, else the model's."""
    ceiling = max(strictest.default_output_tokens or known.default_output or DEFAULT_OUTPUT_TOKENS, least)
    if known.known and known.max_output is not None:
        ceiling = min(ceiling, known.max_output)
    if known.known and known.context is not None and known.context > input_tokens:
        ceiling = min(ceiling, known.context - input_tokens)
    return max(ceiling, 1)


def _reject_uncapped(strictest: Strictest) -> Decision:
    title = next(budget.title for budget in strictest.hard if budget.uncapped == "reject")
    remedy = (
        f"budget {title!r} rejects requests without an output ceiling (uncapped='reject'): set max_completion_tokens, "
        "max_tokens or max_output_tokens on the request."
    )
    return refusal(budget=title, remedy=remedy)
