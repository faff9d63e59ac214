"""
One call, seen twice: by a program that is governed itself, and by a proxy on the same ledger that it calls through.

Both would hold for it and write a row. Instead the program *offers* its hold on the ledger, by the hold's id, and the
proxy takes it over: the proxy's hold, on the accounts of both, replaces the offered one in one step. So there is one
hold at any time, on every account that either of them would use, one row, and one who is sure to end it: the proxy.

A program that holds nothing on the ledger offers the id that it would have had; the proxy puts an empty hold there
first. A program that has left before the proxy holds has made its hold a suspect: the proxy takes that back, for what
the call comes to is said by its own hold from then on, or is nothing, for it refuses the call.

The id that is offered is 96 random bits behind a prefix that no other hold has. To have one, somebody must have placed
a hold on the ledger; to use it moves that hold, once, to one on the same accounts and more. So no caller can turn off
by it what counts its calls. And the program believes nothing but the ledger: that its hold was taken.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ..errors import StoreUnavailable
from ..kernel.hold import VOIDED
from ..runtime.runtime import log
from ..stores.contract import Ticket
from .call import Call

OFFER_HEADER = "x-farthing-hold"
"""Of a request: the id of the hold that its sender offers, or would, had it to hold anything on its ledger."""
CALL_HEADER = "x-farthing-call-id"
"""Of an answer: it came through a proxy, which knows the call by this id."""
ID_LENGTH_MAX = 80


def offer(call: Call) -> str | None:
    """What to send along with this admitted call, to whoever may be a proxy; None: nothing."""
    return call.hold_id if call.offers and call.admitted is not None else None


def taken_over(call: Call) -> Generator[Ticket[Any], Any, None]:
    """The answer begins. Did the proxy that it came through take over what this call holds on the durable ledger?"""
    durable = call.runtime.durable
    if not call.offers or durable is None:
        return
    try:
        hold = yield durable.store.find(call.hold_id)
    except StoreUnavailable as error:
        log.warning("%s; whether a proxy counts call %s is unknown: it is counted here too", error, call.id)
    else:
        # Given back without our word, and not by time or a person: only who takes it over does that.
        call.counted_elsewhere = hold is not None and hold.state == VOIDED and not hold.automatic
