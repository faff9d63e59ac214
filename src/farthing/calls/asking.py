"""
What a call asks for: its most input, its price, how much output it wants, from what its request says.

The size of a hold comes from :func:`asked_of`, and from nowhere else.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import tokens
from ..errors import UnmeteredCall, UnpricedModel
from ..kernel.balances import bare
from ..kernel.decision import Decision, refusal
from ..kernel.plan import Ask, CallFacts
from ..kernel.strictest import Strictest
from ..prices import PriceBook, Rates
from ..runtime.settings import Settings
from ..tokens import ModelFacts, Weight
from ..wire.anthropic.messages import THREAD
from ..wire.facts import RequestFacts
from ..wire.reading import OTHER_MODELS
from .call import Call, History

DEFAULT_OUTPUT_TOKENS = 4_096


class Output(NamedTuple):
    """How much output a call asks for, per choice, and who says so."""

    ceiling: int
    floor: int
    injected: bool = False
    """A ceiling that the caller did not set goes on the wire: ours, or one that a callable allowed."""
    cut_margin: int | None = None
    """The stream is ended by us when its hold is used up, of which so many tokens are billed after the cut."""
    defaulted: bool = False
    """The ceiling is one that we chose: neither the caller nor the endpoint knows one."""
    watched: bool = False
    """No ceiling goes on the wire: the cut is all that bounds the output (``uncapped="watch"``)."""
    told: bool = True
    """The ceiling is on the wire, or the endpoint's own."""


class Asked(NamedTuple):
    """An ask, and what the rest of the call's life needs to know about how it was made."""

    ask: Ask
    rates: Rates | None
    model: ModelFacts
    output: Output
    weight: Weight | None
    """What its input was counted as, where its usage may teach how dense this model's text is."""
    countable: bool
    """Long texts were bounded by their bytes: counted, they would ask for less."""


def input_bound(request: RequestFacts, model: str) -> int:
    """The most input tokens that the request's own content can be billed for."""
    return tokens.bound(request.text, model=model, overhead_tokens=request.overhead_tokens, images=request.images)


def find_rates(prices: PriceBook, settings: Settings, model: str, provider: str | None, at_ms: int) -> Rates | None:
    """The rates of a model, those of another by policy, or None where no price is known."""
    rates = prices.find(model, provider, at_ms)
    if rates is None and (price_as := settings.price_as):
        return prices.rates_as(price_as, model=model, at_ms=at_ms)
    return rates


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
    return request.but(open_reasons=reasons, overhead_tokens=request.overhead_tokens + history.tokens)


def asked_of(call: Call, model: str, strictest: Strictest, allowed_output: int | None = None) -> Asked | Decision:
    """
    What this call can cost at most with this model, or a denial by the strictest budget's policy. *allowed_output* is a
    lower output ceiling that a callable ``on_exceed`` named.

    Raises UnpricedModel where a budget counts USD and the policy is ``reject``; UnmeteredCall where the input has no
    bound on this side and the policy is ``reject`` (or nothing is known that could bound it).
    """
    runtime, request = call.runtime, call.request
    if call.history is not None:
        request = continued(request, call.history, model)
    provider, open_reasons, choices = request.provider, request.open_reasons, request.choices
    settings, now_ms = runtime.settings, call.started_ms
    rates = find_rates(runtime.prices, settings, model, provider, now_ms)
    if rates is None and strictest.counts_usd is not None and settings.unpriced == "reject":
        raise UnpricedModel(model, provider=provider, budget=strictest.counts_usd.title)
    known = tokens.facts_of(model, provider)
    own = tokens.family_of(model)
    # Where the ledger has learned better than the model's own, that counts its text.
    family = runtime.learner.family(model, request.dialect) or own
    weight = tokens.weigh(
        request.text, own, model=model, overhead_tokens=request.overhead_tokens, images=request.images, exact=call.exact
    )
    input_tokens = weight.bound(family)
    if open_reasons and strictest.hard:
        input_tokens = _open_input(request, strictest, known, input_tokens, url=str(call.url))
    margin = _cut_margin(call) if strictest.may_cut else None
    output = _output(request, strictest, known, input_tokens, margin, allowed_output)
    if output is None:
        return _reject_uncapped(strictest)
    price = None
    if rates is not None:
        price = rates.bound(
            input_tokens=input_tokens,
            writes_cache=request.writes_cache,
            cache_1h=request.cache_1h,
            service_tier=request.service_tier,
            audio=bool(open_reasons),
            image=bool(request.images or open_reasons),
            choices=choices,
        )
    # Also where only a replay with other budgets will ever shrink it: these look on.
    ours = request.output_ceiling is None and allowed_output is None
    certain = "proven" if output.told and not open_reasons else "open"
    version = None if rates is None else rates.version
    asked_model = None if model == request.model else request.model
    fields = (
        model,
        provider,
        request.dialect,
        call.tags,
        strictest.titles,
        input_tokens,
        choices,
        price,
        version,
        certain,
        asked_model,
        ours,
    )
    facts = bare(CallFacts, fields)
    ceiling = output.ceiling
    ask = bare(Ask, (call.id, facts, ceiling, min(ceiling, output.floor), call.deadline_ms(now_ms)))
    countable = not call.exact and weight.by_bytes > 0 and request.body_bytes <= COUNTED_BYTES_MAX
    teaches = weight if family.guessed and not open_reasons else None
    return bare(Asked, (ask, rates, known, output, teaches, countable))


def _output(
    request: RequestFacts,
    strictest: Strictest,
    known: ModelFacts,
    input_tokens: int,
    margin: int | None,
    allowed: int | None,
) -> Output | None:
    """
    How much output to ask for; None where a budget rejects a request without a ceiling. *margin*: how many tokens a
    provider still bills after a cut, for a stream that can be cut; *allowed*: see :func:`asked_of`.
    """
    ceiling, implied = request.output_ceiling, request.implied_ceiling
    uncapped = ceiling is None and implied is None and allowed is None
    watched = False
    if uncapped and strictest.uncapped == "watch" and margin is not None:
        # What a model reasons unseen, or says in sound, no cut could notice.
        watched = not request.no_text and (request.no_reasoning or not known.hidden_reasoning)
    if not strictest.breaks and not watched:
        margin = None
    # A cut comes a margin before the hold's end, and what comes before it must be of use.
    floor = max(strictest.min_output_tokens, request.min_output_tokens) + (margin or 0)
    if allowed is not None:
        # A callable lowered it: it goes on the wire, and it is what is asked for now.
        return Output(min(allowed, ceiling or allowed), floor, injected=True, cut_margin=margin)
    if ceiling is not None:
        return bare(Output, (ceiling, floor, False, margin, False, False, True))
    if implied is None and strictest.hard and strictest.uncapped == "reject":
        return None
    if implied is None:
        implied = _default_output(known, strictest, input_tokens, least=1 if margin is None else floor)
    # An implied one goes on the wire too: a compatible server may not keep to what the provider documents.
    ours = bool(strictest.hard)
    injected = ours and not watched
    return Output(implied, floor, injected, margin, uncapped and ours, watched, injected or not uncapped)


def _cut_margin(call: Call) -> int | None:
    """How many tokens its provider may still bill after a cut of ours; None where there is no stream to cut."""
    request = call.request
    # What runs in the background goes on, whoever hangs up.
    alone = request.stream and "background" not in request.open_reasons
    cuttable = alone and call.dialect.closer(request) is not None
    return call.runtime.settings.abort_margin_tokens if cuttable else None


def _open_input(request: RequestFacts, strictest: Strictest, known: ModelFacts, input_tokens: int, *, url: str) -> int:
    """The input to hold for a request whose input has no bound on this side."""
    if strictest.open_bound == "overrun":
        return input_tokens
    why = ", ".join(request.open_reasons)
    title = next(budget.title for budget in strictest.hard if budget.open_bound == strictest.open_bound)
    if strictest.open_bound == "reject":
        reason = f"its cost has no bound on this side ({why}) and the budget says open_bound='reject'"
        raise UnmeteredCall("POST", url, budget=title, reason=reason)
    if OTHER_MODELS in request.open_reasons and any(budget.usd_nano is not None for budget in strictest.hard):
        reason = f"it names {OTHER_MODELS}, at prices of their own; open_bound='overrun' would admit it"
        raise UnmeteredCall("POST", url, budget=title, reason=reason)
    if [*request.open_reasons] == [OTHER_MODELS]:
        return input_tokens
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
