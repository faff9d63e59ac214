"""
The door table, first half: every entry point of both SDKs, sync and async, for a call that goes well.

Each cell makes the same call twice: with an untouched client against one fake provider, with a governed one inside a
budget against another that is in the same state. What the caller sees must be the same, class by class and value by
value; and the ledger must have exactly one row, with the provider's own figures.

The other half, :mod:`.test_endings`, crosses the ways a call can end with the shapes that a call has below the SDK's
methods. Left out here, because the cells are equal to one that is present: ``copy()`` (it is ``with_options``),
``with_raw_response`` of the beta and parse methods (the same envelope around the same request), and ``n``, tools,
images and thinking, which change what is counted and not the way (:mod:`.test_figures`).
"""

from __future__ import annotations

import asyncio

import pytest

import farthing
from farthing.testing import FakeProvider, Reply
from farthing.testing.bill import cost_nano
from tests.doors.clients import NOTHING, RATES, entries, holds
from tests.doors.ways import WAYS, Way, run, run_async

pytestmark = pytest.mark.usefixtures("farthing_isolated")
ANSWER = Reply('{"word": "farthing"}', input_tokens=50, cached_tokens=20)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.id)
def test_one_entry_with_the_providers_figures_and_the_sdks_own_objects(way: Way, asynchronous: bool) -> None:
    title = "unnamed ($1.00 and 1,000 tokens and 5 requests and 1 at once)"
    with FakeProvider(ANSWER, now_ms=lambda: 0) as untouched, FakeProvider(ANSWER, now_ms=lambda: 0) as provider:
        if asynchronous:
            wanted = asyncio.run(run_async(way, untouched, governed=False))
        else:
            wanted = run(way, untouched, governed=False)
        with farthing.budget(usd=1, tokens=1_000, requests=5, concurrency=1) as budget:
            if asynchronous:
                seen = asyncio.run(run_async(way, provider, governed=True))
            else:
                seen = run(way, provider, governed=True)
        (billed,) = provider.bill
    assert wanted.error is None
    assert seen == wanted
    (entry,) = entries()
    assert (entry.ending, entry.usage_source, entry.suspect, entry.overrun) == ("ok", "provider", False, ())
    assert dict(entry.usage) == billed.usage.to_dict()
    assert entry.cost_nano == cost_nano(billed.usage, RATES[billed.model])
    assert (entry.facts.model, entry.facts.budgets) == (billed.model, (title,))
    assert holds() == []
    assert budget.held == NOTHING
    assert (budget.spent.tokens, budget.spent.requests) == (billed.usage.total_tokens, 1)
