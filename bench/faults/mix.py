"""
The mix: every kind of call, how many of a thousand are of it, and how each may end.

Two columns say who misbehaves: what the provider ``does`` (:mod:`.provider` has a function of that name) and what the
``client`` does (:mod:`.clients`). Then what the client may be answered, and what the ledger may say of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .wire import Wire

NONE = "no entry"
"""It never reached the provider, and the ledger has no row of it."""
UNSENT = "never sent"
"""The same, and the ledger has a row that says so: nothing was counted."""
EXACT = "as billed"
"""The provider's usage figure arrived: it costs what it was billed, to the nano-dollar."""
COUNTED = "counted"
"""No figure arrived: it costs at least what it was billed, and at most what was held."""
VOID = "not billed"
UNKNOWN = "suspect"
"""It may have been billed, and nobody here can know: it stays counted at what was held, at least what it was billed."""

NOTHING, CUT = "no answer", "cut"
"""Answers beside a status: the connection ended before its answer, or within one that had begun with 200."""


class Kind(NamedTuple):
    """One row of the mix."""

    share: int
    """Of 1,000 calls."""
    name: str
    answers: frozenset[str]
    """Statuses, and ``cut`` or ``no answer``."""
    entries: frozenset[str]
    does: str = "answer"
    client: str = "stay"
    stream: bool = False
    team: str = "load"
    """Whose key: ``small``, ``line`` and ``brief`` have budgets of their own."""
    upstream: str = ""
    """The prefix of its path: ``/impatient`` waits half a second, ``/nowhere`` and ``/tls`` cannot be reached."""
    free: bool = False
    """It asks for something that costs no tokens: it passes, and has no entry."""


def _plain(share: int, name: str, answers: str, entries: str, does: str = "answer", **more: Any) -> Kind:
    return Kind(share, name, _set(answers), _set(entries), does, **more)


def _stream(share: int, name: str, answers: str, entries: str, does: str = "answer", **more: Any) -> Kind:
    return Kind(share, f"stream, {name}", _set(answers), _set(entries), does, stream=True, **more)


def _free(share: int, name: str, answers: str, does: str = "answer", **more: Any) -> Kind:
    return Kind(share, f"free, {name}", _set(answers), _set(NONE), does, free=True, **more)


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split(" | "))


REFUSALS = (400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 529)
"""What a provider answers instead, unbilled."""
GAVE_UP = (504, 524)
_REFUSED = " | ".join(map(str, REFUSALS))
_GAVE_UP = " | ".join(map(str, GAVE_UP))

KINDS = (
    # Nobody misbehaves.
    _plain(215, "plain", "200", EXACT),
    _stream(120, "in a burst", "200", EXACT),
    _stream(40, "paced", "200", EXACT, "pace"),
    _free(10, "plain", "200"),
    # The provider does, before its answer …
    _plain(60, "refused by the provider", _REFUSED, VOID, "refuse"),
    _stream(15, "refused by the provider", _REFUSED, VOID, "refuse"),
    _plain(15, "504 or 524", _GAVE_UP, UNKNOWN, "give_up"),
    _stream(5, "504 or 524", _GAVE_UP, UNKNOWN, "give_up"),
    _plain(15, "hangs up before its answer", "502", UNKNOWN, "hang_up"),
    _stream(5, "hangs up before its answer", "502", UNKNOWN, "hang_up"),
    _plain(10, "resets before its answer", "502", UNKNOWN, "reset"),
    _plain(8, "no HTTP", "502", UNKNOWN, "talk_garbage"),
    _plain(2, "a head that is too large", "502", UNKNOWN, "talk_too_much"),
    _plain(2, "silent beyond the timeout", "504", UNKNOWN, "be_silent", upstream="/impatient"),
    _plain(4, "cannot be reached", "502", UNSENT, upstream="/nowhere"),
    _plain(2, "no TLS", "502", UNSENT, upstream="/tls"),
    _free(2, "hangs up before its answer", "502", "hang_up"),
    _free(1, "cannot be reached", "502", upstream="/nowhere"),
    # … within it …
    _plain(15, "cut", "502", UNKNOWN, "cut"),
    _plain(8, "reset within the answer", "502", UNKNOWN, "cut_and_reset"),
    _stream(20, "cut", "cut", COUNTED, "cut"),
    _stream(10, "reset within", "cut", COUNTED, "cut_and_reset"),
    _stream(8, "framing broken", "cut", COUNTED, "break_framing"),
    _stream(2, "stalls beyond the timeout", "cut", COUNTED, "stall", upstream="/impatient"),
    _stream(8, "ends early, in good order", "200", COUNTED, "end_early"),
    _free(3, "cut", f"502 | {CUT}", "cut"),
    _free(2, "reset within a stream", CUT, "cut_and_reset", stream=True),
    _stream(5, "cut behind its usage figure", "cut", EXACT, "cut_late"),
    _stream(5, "an error instead", "200", VOID, "err_at_once"),
    _stream(5, "an error within", "200", COUNTED, "err_within"),
    # … and in what it says, or how.
    _plain(20, "in pieces", "200", EXACT, "drip"),
    _plain(10, "behind an early hint", "200", EXACT, "hint"),
    _plain(40, "then hangs up on the kept connection", "200", EXACT, "answer_and_leave"),
    _plain(20, "connection: close", "200", EXACT, "answer_and_close"),
    _plain(10, "and more than was asked", "200", EXACT, "answer_too_much"),
    _plain(5, "compressed", "200", EXACT, "compress"),
    _stream(5, "compressed", "200", EXACT, "compress"),
    _plain(2, "compressed, and damaged", "200", COUNTED, "compress_badly"),
    _stream(2, "compressed, and damaged", CUT, COUNTED, "compress_badly"),
    _plain(10, "without usage", "200", COUNTED, "forget_usage"),
    _stream(5, "without usage", "200", COUNTED, "forget_usage"),
    _plain(5, "200, and no answer of its kind", "200", COUNTED, "say_nothing"),
    # The client does, before its request is whole: nothing is asked of the provider …
    _plain(10, "body is no JSON", "400", NONE, client="send_nonsense"),
    _plain(8, "goes within its body", NOTHING, NONE, client="send_half"),
    _plain(1, "stalls within its body", "408", NONE, client="stall"),
    _plain(6, "body too large, and says so", "413", NONE, client="announce_too_much"),
    _plain(3, "body too large, unannounced", "413", NONE, client="send_too_much"),
    _plain(4, "no HTTP from the client", "400", NONE, client="talk_garbage"),
    _plain(3, "headers too large", "431", NONE, client="boast"),
    _plain(10, "wrong key", "401", NONE, team="nobody"),
    _plain(20, "a small budget", "200 | 429", f"{EXACT} | {NONE}", team="small"),
    # … and after.
    _plain(10, "sends in pieces", "200", EXACT, client="drip"),
    _plain(5, "expects 100 Continue", "200", EXACT, client="expect"),
    _plain(4, "HTTP/1.0", "200", EXACT, client="be_old"),
    _stream(3, "HTTP/1.0", "200", EXACT, client="be_old"),
    _plain(5, "asks twice in one go", "200", EXACT, client="pipeline"),
    _plain(5, "asks twice in one go, and goes", NOTHING, EXACT, "think", client="pipeline_and_leave"),
    _plain(25, "goes before its answer", NOTHING, EXACT, "think", client="leave"),
    _stream(10, "goes before its answer", NOTHING, f"{EXACT} | {COUNTED}", "think", client="leave"),
    _plain(10, "goes at once", NOTHING, f"{NONE} | {UNSENT} | {EXACT}", client="leave_at_once"),
    _stream(30, "goes within", NOTHING, f"{EXACT} | {COUNTED}", "pace", client="leave_within"),
    _free(3, "goes within a stream", NOTHING, "pace", stream=True, client="leave_within"),
    _stream(15, "resets within", NOTHING, f"{EXACT} | {COUNTED}", "pace", client="reset_within"),
    _plain(8, "half-closes", f"200 | {NOTHING}", f"{NONE} | {UNSENT} | {EXACT}", client="half_close"),
    _stream(5, "half-closes", f"200 | {CUT} | {NOTHING}", f"{NONE} | {UNSENT} | {EXACT} | {COUNTED}",
            client="half_close"),
    _stream(3, "reads slowly", "200", EXACT, "talk_long", client="read_slowly"),
    _plain(8, "waits in line", "200", EXACT, "think", team="line"),
    _plain(4, "goes while in line", NOTHING, f"{NONE} | {UNSENT} | {EXACT}", "think", team="line", client="leave_soon"),
    _stream(6, "cut by its budget", "200", f"{COUNTED} | {EXACT}", "talk_on", team="brief"),
    # Both do.
    _plain(5, "goes, and the provider hangs up", NOTHING, UNKNOWN, "think_and_hang_up", client="leave"),
    _plain(5, "goes, and the provider gives up", NOTHING, UNKNOWN, "think_and_give_up", client="leave"),
    _plain(4, "goes, and the provider resets", NOTHING, UNKNOWN, "think_and_reset", client="leave"),
    _plain(1, "goes, and the provider is silent", NOTHING, UNKNOWN, "be_silent", client="leave", upstream="/impatient"),
    _stream(8, "goes within, and the provider cuts it", NOTHING, COUNTED, "cut", client="leave_within"),
    _plain(1, "half-closes, and the provider cuts it", f"502 | {NOTHING}", f"{NONE} | {UNSENT} | {UNKNOWN}", "cut",
           client="half_close"),
)  # fmt: skip


@dataclass(slots=True)
class Call:
    """One call, and what became of it at both ends."""

    name: str
    kind: Kind
    chance: float
    """From 0 up to 1: whatever its kind leaves open."""
    wire: Wire | None = None
    """Its client's connection: woken when the provider has heard the request."""
    heard: int = 0
    """How often the provider had it in hand, whole."""
    billed_prompt: int = 0
    billed_output: int = 0
    answer: str = NOTHING
    wrong: str = ""
    """What is wrong with the answer itself."""

    def pick(self, choices: tuple[int, ...]) -> int:
        return choices[int(self.chance * len(choices))]


def calls(count: int, *, seed: int, prefix: str = "c") -> Iterator[Call]:
    """So many calls, in an order of their own: every kind once, if there is room, and the rest by its share."""
    chance = random.Random(seed)
    kinds = [*KINDS, *chance.choices(KINDS, [kind.share for kind in KINDS], k=max(0, count - len(KINDS)))][:count]
    chance.shuffle(kinds)
    for number, kind in enumerate(kinds):
        yield Call(f"{prefix}{number:06d}", kind, chance.random())
