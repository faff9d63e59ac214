"""
Endings: how an attempt ends, and what it costs. Pure; one function per row of the table.

============================================  =========================================================================
usage reported                                that usage, with the rates pinned at the hold
complete answer without usage                 counted, at most the hold (hidden reasoning, unreadable: the hold)
an answer that is an error, nothing delivered void; it was sent, so ``requests`` counts 1
connecting failed                             void; it was never sent
504, 524, timeout, connection lost            suspect at the hold
answer still being made in the background     suspect at the hold, until it is asked for and complete
stream cut, without final usage               input as reported or held; output as delivered, counted, plus the abort
                                              margin; hidden reasoning, or arrivals that nobody saw: the hold
============================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .. import tokens
from ..kernel.balances import bare
from ..kernel.hold import Outcome
from ..kernel.plan import CallFacts
from ..kernel.usage import Usage, with_output
from ..prices import Rates
from ..wire.facts import AnswerFacts, RequestFacts
from ..wire.reading import OTHER_MODELS

GATEWAY_TIMEOUTS = (504, 524)
"""Answers of a gateway that gave up on a provider that may still be generating, and billing."""
OUTCOME = (b"x-farthing-outcome", b"unknown")
"""A header of such an answer: the call may have been billed."""
BACKGROUND = "background"
"""The answer is still being made: asking for it later tells what it cost."""


class Settle(NamedTuple):
    """The cost is known, exactly or counted."""

    outcome: Outcome


class Void(NamedTuple):
    """It certainly cost nothing."""

    outcome: Outcome


class Lost(NamedTuple):
    """It may have been billed: the outcome is unknown."""

    ending: str
    note: str | None
    kept_as: str | None = None
    """The id under which the provider will say how it ended."""


Ending = Settle | Void | Lost


class Bounds(NamedTuple):
    """The most that a call can be billed for, for endings without a provider's figure."""

    input_tokens: int
    output_tokens: int
    """All choices together."""
    told: bool
    """The provider was told that ceiling; one that only we know keeps nobody from billing more."""
    unseen_output: bool
    """It may be billed for output that is never delivered as text: reasoning in secret, sound, images."""
    known_model: bool
    margin_tokens: int
    """What the provider may go on to bill after a stream was cut."""

    def output(self, delivered: int) -> int:
        """What was delivered, as it is counted here, within the ceiling that its provider keeps."""
        return min(delivered, self.output_tokens) if self.told else delivered


class Limits(NamedTuple):
    """What an ending needs to know beside the answer."""

    model: str
    rates: Rates | None
    bounds: Callable[[], Bounds]
    """Asked only where no usage was reported: a call that nothing was held for has not counted its input yet."""
    request: RequestFacts
    """What it asked for says how it may be billed, where its answer does not."""
    rates_of: Callable[[str], Rates | None] | None = None
    """Those of another model, where others may answer it, or be used for its answer."""


def status_of(status: int, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """
    The status that says what an answer with a server's error (500 and more) cost. Where a proxy like ours lost the
    answer, it says so beside its error: that is a gateway that gave up, whatever its number.
    """
    lost = OUTCOME in [(name.lower(), value) for name, value in headers]
    return GATEWAY_TIMEOUTS[0] if lost else status


def unpaid(status: int) -> bool:
    """Whether an answer with this status certainly was not billed."""
    return status >= 300 and status not in GATEWAY_TIMEOUTS


def of_answer(answer: AnswerFacts, status: int, limits: Limits) -> Ending:
    """A plain answer, or a stream that came to its end."""
    if status in GATEWAY_TIMEOUTS:
        return Lost(f"http_{status}", "a gateway gave up waiting for the provider")
    if answer.error or unpaid(status):
        return refused(f"http_{status}" if status >= 300 else "error")
    if answer.usage is not None:
        return bare(Settle, (_priced(answer.usage, limits, "ok", "provider", answer),))
    if not answer.complete and answer.kept_as is not None:
        return Lost(BACKGROUND, None, answer.kept_as)
    if not answer.complete or not says_anything(answer):
        # Billed for all we know, and nothing in it can be counted.
        return Settle(unknown(limits, ending="unreadable", note=None))
    return Settle(_counted(answer, limits))


def says_anything(answer: AnswerFacts) -> bool:
    """Whether anything in it was understood. Well-formed JSON, or events, need not be an answer of this dialect."""
    parts = (answer.text, answer.usage, answer.partial_input, answer.model, answer.response_id, answer.finish)
    return any(part for part in parts)


def of_cut(answer: AnswerFacts, limits: Limits, *, ending: str, note: str | None, arrived: bool = True) -> Ending:
    """
    A stream that was cut: by us, by the client, by the provider, or never closed.

    *arrived*: all that reached this machine is in *answer*. The provider bills what it generated, not what was read.
    """
    if answer.error:
        return refused(ending)
    if answer.usage is not None:
        return Settle(_priced(answer.usage, limits, ending, "provider", answer))
    bounds = limits.bounds()
    base = answer.partial_input or Usage(input=bounds.input_tokens)
    output, source = bounds.output(_count(answer, limits.model) + bounds.margin_tokens), "counted"
    if bounds.unseen_output or not arrived:
        output, source = max(output, bounds.output_tokens), "estimate"
    usage = with_output(base, output)
    billed = _as_dear(usage, limits, answer, answer.partial_input is None, source == "estimate")
    outcome = _priced(usage, limits, ending, source, answer, billed)
    return Settle(outcome._replace(note=note))


def of_background(answer: AnswerFacts, limits: Limits) -> Ending | None:
    """What a background call came to, as it was asked for later; None while it runs."""
    if not answer.complete:
        return None
    if answer.finish == "cancelled" and answer.usage is None:
        # What was generated until then may be billed.
        return of_cut(answer, limits, ending="cancelled", note=None)
    return of_answer(answer, 200, limits)


def refused(ending: str) -> Void:
    """The provider said no, unbilled; the request was sent."""
    return Void(Outcome((0, 0, 1, 0), cost_nano=0, ending=ending))


def never_sent(ending: str) -> Void:
    """Connecting failed: nothing left this machine."""
    return Void(Outcome(cost_nano=0, ending=ending))


def unknown(limits: Limits, *, ending: str, note: str | None) -> Outcome:
    """All that it may have cost, where nothing better is known."""
    bounds = limits.bounds()
    usage = Usage(input=bounds.input_tokens, output=bounds.output_tokens)
    billed = _as_dear(usage, limits, NOT_SEEN, True, True)
    return _priced(usage, limits, ending, "estimate", NOT_SEEN, billed)._replace(note=note)


NOT_SEEN = AnswerFacts()
"""Of an answer that never came, or told nothing."""


def _as_dear(usage: Usage, limits: Limits, answer: AnswerFacts, untold_input: bool, untold_output: bool) -> Usage:
    """A usage whose input, or whose output, is what was held for it, as what that was held at."""
    if limits.rates is None:
        return usage
    request = limits.request
    return limits.rates.as_dear_as(
        usage,
        untold_input=untold_input,
        untold_output=untold_output,
        writes_cache=request.writes_cache,
        cache_1h=request.cache_1h,
        service_tier=answer.service_tier or request.service_tier,
        audio=bool(request.open_reasons),
        image=bool(request.images or request.open_reasons),
    )


def _priced(
    usage: Usage, limits: Limits, ending: str, source: str, answer: AnswerFacts, billed: Usage | None = None
) -> Outcome:
    """
    An outcome with its cost; without a known price the cost is None, never zero. *billed*: what it is priced as, where
    that is not known to be *usage*.
    """
    asked, rates, _, request, rates_of = limits
    model = answer.model
    if model == asked:
        model = None
    if model is not None and rates_of is not None and OTHER_MODELS in request.open_reasons:
        rates = rates_of(model) or rates
    told, cost_nano = answer.service_tier, None
    if rates is not None:
        cost_nano = rates.cost_nano(billed or usage, told)
        if not told and request.service_tier:
            # What its caller asked for makes it dearer, and never cheaper than a provider that knows no tiers.
            cost_nano = max(cost_nano, rates.cost_nano(billed or usage, request.service_tier))
    for other, used in answer.beside:
        usage += used
        if cost_nano is not None and rates is not None:
            cost_nano += ((rates_of and rates_of(other)) or rates).cost_nano(used)
    amounts = (usage.total_tokens, cost_nano or 0, 1, 0)
    return bare(Outcome, (amounts, usage, cost_nano, ending, source, model, answer.usage_note))


def at_least_priced(outcome: Outcome, facts: CallFacts, x: int) -> Outcome:
    """
    The outcome of a call that money was held for, and whose price is not known any more (another process registered
    it, or it was held as an amount): what was held is what it cost. An unknown price is never zero.
    """
    if outcome.cost_nano is not None or facts.price is None:
        return outcome
    cost_nano = facts.price.at(x)
    note = "; ".join(filter(None, [outcome.note, "its price was not known at its end: counted at its hold"]))
    tokens, _, requests, _ = outcome.amounts
    return outcome._replace(amounts=(tokens, cost_nano, requests, 0), cost_nano=cost_nano, note=note)


def _counted(answer: AnswerFacts, limits: Limits) -> Outcome:
    # A model known to reason in secret delivered more than can be counted here: then what was held is assumed.
    bounds = limits.bounds()
    output, source = bounds.output(_count(answer, limits.model)), "counted"
    if bounds.unseen_output and (bounds.known_model or limits.request.no_text):
        output, source = max(output, bounds.output_tokens), "estimate"
    usage = with_output(answer.partial_input or Usage(input=bounds.input_tokens), output)
    billed = _as_dear(usage, limits, answer, answer.partial_input is None, source == "estimate")
    return _priced(usage, limits, "ok", source, answer, billed)


def _count(answer: AnswerFacts, model: str) -> int:
    return sum(tokens.count_text(text, model) for text in answer.text)
