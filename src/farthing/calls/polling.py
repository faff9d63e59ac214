"""
Asking for a stored answer: free, and what settles a call that ran in the background.

``POST …/responses`` with ``background`` is answered before anything was generated, so its call is suspect at its hold.
``GET …/responses/{id}`` tells later how it ended, to whatever process asks; so does cancelling it. The call is settled
by the first that tells, once: the ledger takes one late truth about a suspect, and the same one again changes nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from .. import tokens
from ..errors import HoldConflict, StoreUnavailable
from ..kernel.hold import LIVE, Hold
from ..prices import Rates
from ..runtime.ledgers import Ledger
from ..runtime.runtime import log
from ..stores.contract import Ticket
from ..wire.facts import AnswerFacts, Dialect, RequestFacts
from ..wire.reading import Gathering
from . import endings
from .asking import find_rates
from .call import Call
from .endings import Bounds, Limits, Settle, Void
from .steps import READ_ALL, SEND_AS_IT_IS, Answered, Broken, Finished, Life, NotSent, Relay


def asks(dialect: Dialect, path: str) -> RequestFacts:
    """The request that asks: it has no body, and costs nothing. *path*: with its query."""
    request = Gathering(dialect, {}, b"", path)
    request.stream = "stream=true" in path.lower()
    return request


def poll(call: Call) -> Life:
    """Send it as it is, pass the answer on as it comes, and settle the call that it tells of."""
    try:
        answered: Answered = yield SEND_AS_IT_IS
    except (NotSent, Broken):
        return Finished()
    if answered.streamed:
        return (yield from _stream(call))
    try:
        body: bytes = yield READ_ALL
    except Broken:
        return Finished()
    yield from _told(call, call.dialect.read_answer(call.request, answered.status, body))
    return Finished()


def _stream(call: Call) -> Life:
    """The stream of a background call, from wherever its caller left it."""
    meter = call.dialect.meter(call.request, strip_usage=False)
    out, told = b"", False
    try:
        while (chunk := (yield Relay(out))) is not None:
            out = meter.feed(chunk)
            if not told and meter.complete:
                told = True
                yield from _told(call, meter.facts())
        out = meter.finish()
        if not told:
            yield from _told(call, meter.facts())
        if out:
            yield Relay(out)
    except Broken:
        # What it did not come to tell, another request may.
        pass
    return Finished()


def _told(call: Call, answer: AnswerFacts) -> Generator[Ticket[Any], Any, None]:
    """Settle what waits for this answer, in every ledger."""
    if answer.kept_as is None or not answer.complete:
        return
    for ledger in (call.runtime.memory, call.runtime.durable):
        if ledger is None:
            continue
        try:
            hold: Hold | None = yield ledger.store.answered(answer.kept_as)
            if hold is not None and hold.outcome is None and (hold.state in LIVE or hold.automatic):
                yield from _settle(call, ledger, hold, answer)
        except HoldConflict as error:
            log.debug("a background call was settled by another process before: %s", error)
        except StoreUnavailable as error:
            # The answer belongs to its caller. The call stays suspect, and the next that asks settles it.
            log.error("background call %s could not be settled: %s", answer.kept_as, error)


def _settle(call: Call, ledger: Ledger, hold: Hold, answer: AnswerFacts) -> Generator[Ticket[Any], Any, None]:
    ending = endings.of_background(answer, _limits(call, hold))
    match ending:
        case Settle(outcome):
            yield ledger.store.settle(hold.id, endings.at_least_priced(outcome, hold.facts, hold.x))
        case Void(outcome):
            yield ledger.store.void(hold.id, outcome)


def _limits(call: Call, hold: Hold) -> Limits:
    """The prices of when it was held, and what was held."""
    facts, runtime = hold.facts, call.runtime
    model = facts.model or ""

    def rates_of(model: str) -> Rates | None:
        return find_rates(runtime.prices, runtime.settings, model, facts.provider, hold.placed_ms)

    rates = None if facts.price is None else rates_of(model)
    known = tokens.facts_of(model, facts.provider)
    told = facts.bound == "proven"
    margin = runtime.settings.abort_margin_tokens
    bounds = Bounds(facts.input_tokens, facts.choices * hold.x, told, known.hidden_reasoning, known.known, margin)
    return Limits(model, rates, lambda: bounds, call.request, rates_of)
