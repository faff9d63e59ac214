"""
The life of a call, one for every door: recognise → identify → plan → hold → send → meter → settle.

:func:`life` is a generator; :mod:`.steps` says what it asks of the door that drives it. It ends exactly once, whatever
happens: every way out of it settles, voids or marks as suspect what it holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from math import inf
from typing import Any

from .. import tokens
from ..errors import StoreUnavailable
from ..kernel.balances import bare
from ..kernel.usage import Usage
from ..runtime.runtime import log
from ..stores.contract import Ticket
from ..wire.cut import CutStream
from ..wire.facts import AnswerFacts, StreamMeter
from ..wire.metering import EventMeter
from . import endings
from .admission import Admitted, admit
from .call import Call
from .endings import Ending, Lost, Settle
from .handover import taken_over
from .last_words import crossed, end, limits
from .steps import FINISHED, READ_ALL, SEND_AS_IT_IS, Answered, Broken, Finished, Life, NotSent, Relay, Send
from .telling import say_broken

Ended = Generator[Ticket[Any], Any, Finished]


def life(call: Call) -> Life:
    """Drive one call from its request to its entry. Raises what refuses it; later, only what the door throws in."""
    admitted = yield from admit(call)
    call.admitted = admitted
    sent = False
    try:
        send = _send(call, admitted)
        sent = True
        answered: Answered = yield send
        if answered.proxied:
            yield from taken_over(call)
    except NotSent as reason:
        yield from end(call, admitted, endings.never_sent(str(reason) or "not_sent"))
        return Finished()
    except Broken as broken:
        yield from end(call, admitted, Lost(broken.ending, broken.note))
        return Finished()
    except BaseException as error:
        # Not one of the door's own words: an exception between two lines. Before sending, nothing can have been billed.
        lost = Lost("interrupted", None) if sent else endings.never_sent("interrupted")
        yield from _end_by(error, call, partial(end, call, admitted, lost))
        raise
    if answered.streamed:
        return (yield from _stream(call, admitted, answered))
    status = answered.status
    try:
        body: bytes = yield READ_ALL
        answer = call.dialect.read_answer(call.request, status, body)
        ending = endings.of_answer(answer, status, limits(call, admitted))
        if admitted.ceiling is not None:
            _say_ceiling(call, admitted, admitted.ceiling, answer)
    except BaseException as error:  # every way out ends the call
        lost = endings.refused(f"http_{status}") if endings.unpaid(status) else _lost(error)
        yield from _end_by(error, call, partial(end, call, admitted, lost))
        if isinstance(error, Broken):
            return Finished()
        raise
    yield from end(call, admitted, ending, kept_as=answer.kept_as)
    return Finished((yield from crossed(call, admitted))) if admitted.raises else FINISHED


def _stream(call: Call, admitted: Admitted, answered: Answered) -> Life:
    """Relay the stream. Settled as soon as its terminal event is seen, before the caller sees the end."""
    meter = _meter(call, admitted)
    watched = meter if type(meter) is CutStream else None
    heartbeat, now = _Heartbeat(call, admitted), call.runtime.memory_store.now
    out = b""
    finished: Finished | None = None
    try:
        while (chunk := (yield bare(Relay, (out, finished, False)))) is not None:
            out = meter.feed(chunk)
            if watched is not None and watched.reached:
                finished, usage = yield from _cut(call, admitted, watched)
                yield Relay(out + watched.closing(usage), finished, last=True)
                return finished
            if finished is None and meter.complete:
                finished = yield from _end_stream(call, admitted, answered, meter.facts())
            elif now() >= heartbeat.due_ms:
                yield from heartbeat.beat()
        out = meter.finish()
        if finished is None:
            finished = yield from _end_of_body(call, admitted, answered, meter)
        if out:
            yield Relay(out, finished)
    except BaseException as error:  # every way out ends the call
        if not call.ended:
            broken = error if isinstance(error, Broken) else Broken("interrupted")
            yield from _end_by(error, call, lambda: _end_cut(call, admitted, meter.facts(), broken))
        if isinstance(error, Broken):
            return finished or Finished()
        raise
    return finished


def _end_of_body(call: Call, admitted: Admitted, answered: Answered, meter: StreamMeter) -> Ended:
    """The body ended. Without its last event the provider cut it, unless all there was is an error."""
    facts = meter.facts()
    if meter.complete or facts.error or not endings.says_anything(facts):
        return (yield from _end_stream(call, admitted, answered, facts))
    yield from _end_cut(call, admitted, facts, Broken("ended_early", "the stream ended without its last event"))
    return Finished()


def _end_stream(call: Call, admitted: Admitted, answered: Answered, facts: AnswerFacts) -> Ended:
    if admitted.ceiling is not None:
        _say_ceiling(call, admitted, admitted.ceiling, facts)
    ending = endings.of_answer(facts, answered.status, limits(call, admitted))
    yield from end(call, admitted, ending, kept_as=facts.kept_as)
    return Finished((yield from crossed(call, admitted))) if admitted.raises else FINISHED


def _meter(call: Call, admitted: Admitted) -> StreamMeter:
    """What reads this stream; and cuts it, where a budget says so."""
    meter = call.dialect.meter(call.request, strip_usage=_asks_usage(call))
    asked, granted = admitted.asked, admitted.granted
    if asked is None or granted is None or asked.output.cut_margin is None:
        return meter
    closer = call.dialect.closer(call.request)
    if closer is None or not isinstance(meter, EventMeter):
        return meter
    model, held = admitted.model, asked.ask.facts.choices * granted.x
    margin = asked.output.cut_margin
    if (asked.output.defaulted or granted.x < asked.ask.x_want) and held > margin:
        most = held - margin
    else:
        # The caller's own ceiling, whole: its provider ends the answer there. If it does not, that must be certain.
        most = tokens.surely(held, model) + 1
    count = partial(tokens.count_text, model=model, exact=True)
    array = call.request.stream_type != "text/event-stream"
    return CutStream(meter, closer, most_tokens=most, count=count, array=array)


def _cut(call: Call, admitted: Admitted, watched: CutStream) -> Generator[Ticket[Any], Any, tuple[Finished, Usage]]:
    """What the stream may deliver is delivered: it is settled, before its caller sees the end."""
    facts = watched.facts()
    ending = endings.of_cut(facts, limits(call, admitted), ending="cut", note=None)
    usage = ending.outcome.usage if isinstance(ending, Settle) else Usage()
    budgets = admitted.asked.ask.facts.budgets if admitted.asked is not None else ()
    log.warning(
        "call %s to %s was cut after %d output tokens: what was held for it on budget %s is used up. "
        "Set a lower output ceiling on the request, or raise the budget.",
        call.id,
        admitted.model,
        watched.delivered_tokens,
        ", ".join(map(repr, budgets)),
    )
    yield from end(call, admitted, ending, kept_as=facts.kept_as)
    if admitted.granted is not None:
        say_broken(call.runtime, call.who(admitted.model), admitted.granted, watched.delivered_tokens)
    finished = Finished((yield from crossed(call, admitted))) if admitted.raises else FINISHED
    return finished, usage


def _end_cut(call: Call, admitted: Admitted, facts: AnswerFacts, broken: Broken) -> Generator[Ticket[Any], Any, None]:
    ending: Ending
    background = "background" in call.request.open_reasons
    if background and facts.kept_as is not None and facts.usage is None:
        # The provider goes on with it, whoever listens.
        ending = Lost(endings.BACKGROUND, broken.ending, facts.kept_as)
    else:
        arrived = broken.arrived and not background
        ending = endings.of_cut(facts, limits(call, admitted), ending=broken.ending, note=broken.note, arrived=arrived)
    yield from end(call, admitted, ending, kept_as=facts.kept_as)


def _end_by(
    error: BaseException, call: Call, say: Callable[[], Generator[Ticket[Any], Any, None]]
) -> Generator[Ticket[Any], Any, None]:
    """
    End a call where this exception left it. A life that is closed as it stands, perhaps by the garbage collector, can
    wait for nothing and must touch no store where it is: its end is only put in line.
    """

    def later() -> None:
        deque(say(), maxlen=0)

    if isinstance(error, GeneratorExit):
        call.runtime.housekeeper.put(later)
    else:
        yield from say()


def _lost(error: BaseException) -> Lost:
    return Lost(error.ending, error.note) if isinstance(error, Broken) else Lost("interrupted", None)


# -- the request that leaves -----------------------------------------------------------------------------------------


def _asks_usage(call: Call) -> bool:
    """Whether we ask for a stream's usage figure because the caller did not."""
    return call.request.stream and not call.request.wants_usage


def _send(call: Call, admitted: Admitted) -> Send:
    """What leaves: the caller's own body and path where nothing has to change."""
    model = admitted.model if admitted.model != call.request.model else None
    ceiling = admitted.ceiling
    ask_usage = _asks_usage(call)
    if model is None and ceiling is None and not ask_usage:
        return SEND_AS_IT_IS
    body = call.dialect.rewrite(call.request, model=model, output_ceiling=ceiling, ask_usage=ask_usage)
    return Send(body, None if model is None else call.dialect.rewrite_path(call.request, model=model))


def _say_ceiling(call: Call, admitted: Admitted, ceiling: int, answer: AnswerFacts) -> None:
    """An answer that ended by a ceiling of ours looks like the model's own choice, so it is said loudly."""
    if answer.finish == "length" and admitted.asked is not None and ceiling != call.request.implied_ceiling:
        budgets = ", ".join(repr(title) for title in admitted.asked.ask.facts.budgets)
        log.warning(
            "call %s to %s was cut off at %d output tokens: the ceiling that farthing set for budget %s. "
            "Set an output ceiling on the request, or raise the budget.",
            call.id,
            admitted.model,
            ceiling,
            budgets,
        )


class _Heartbeat:
    """Keeps the holds of a long stream alive: moves their deadline out as long as bytes arrive."""

    due_ms: float = inf
    """When the next one is due; never, where nothing is held."""

    def __init__(self, call: Call, admitted: Admitted) -> None:
        self._call = call
        self._granted = admitted.granted
        self._every_ms = round(call.timeout_seconds * 500)
        if admitted.granted is not None:
            self.due_ms = call.started_ms + self._every_ms

    def beat(self) -> Generator[Ticket[Any], Any, None]:
        if self._granted is None:
            return
        now_ms = self._call.runtime.memory_store.now()
        self.due_ms = now_ms + self._every_ms
        for store in self._granted.stores:
            try:
                yield store.extend(self._granted.id, deadline_ms=self._call.deadline_ms(now_ms))
            except StoreUnavailable as error:
                # The stream belongs to its caller. Past its deadline the hold is suspect, and still counted.
                log.error("call %s could not be shown to be alive: %s", self._call.id, error)
