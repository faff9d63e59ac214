"""``use_sink``: from now on, write each call there too."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..runtime.default import runtime
from ..runtime.events import BudgetEvent
from .queued import QueueSink, check_max_queue, check_sink
from .subscription import QUEUE_MAX, Subscription


def use_sink(
    sink: Any = None,
    *,
    events: Callable[[BudgetEvent], object] | None = None,
    max_queue: int = QUEUE_MAX,
) -> Subscription | None:
    """
    Write each call, once it is in the ledger, to *sink* too. Several may be in use at once.

    Args:
        sink: one of :mod:`farthing.sinks`, an object with a ``write(row)``, or a function of a row.
        events: a function of a :class:`farthing.BudgetEvent`: what was denied, clamped or downgraded, and alerts.
        max_queue: how many rows may wait for a slow sink; what comes beyond is dropped, and counted.

    Returns its :class:`~farthing.sinks.Subscription`: ``flush()``, ``close()``, ``dropped``, ``failed``. Sinks are
    flushed and closed, for at most five seconds each, when the program ends. Without both arguments every sink in use
    is closed, and None returned.

    Raises ValueError for what is not a sink.
    """
    here = runtime()
    if sink is None and events is None:
        here.events.close(5.0)
        return None
    on_drop = None
    if isinstance(sink, QueueSink):
        on_drop = sink.on_drop_error
        max_queue, sink = sink.max_queue or max_queue, sink.inner
    check_max_queue(max_queue)
    if sink is not None:
        check_sink(sink)
    if events is not None and not callable(events):
        raise ValueError(f"events must be a function of a BudgetEvent, not {events!r}")
    subscription = Subscription(
        sink,
        events=events,
        max_queue=max_queue,
        on_drop=on_drop,
        catch_up=here.alerts.look,
        ended=here.events.unsubscribe,
    )
    here.events.subscribe(subscription)
    return subscription


def flush(seconds: float = 5.0) -> bool:
    """Wait until every sink has written all that it was told so far; False if that takes longer in all."""
    until = time.monotonic() + seconds
    subscriptions = [one for one in runtime().events.subscribers if isinstance(one, Subscription)]
    # Each is asked, also after one that did not make it in time.
    done = [one.flush(max(0.0, until - time.monotonic())) for one in subscriptions]
    return all(done)
