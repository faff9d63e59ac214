"""
The door table, second half: every way in which a call can end, for every shape that a call has below the SDK's methods.

As in :mod:`.test_entry_points`, an untouched client makes the same call to a twin of the provider, and both must see
the same objects and the same exception. Each HTTP attempt leaves exactly one row.

Pruned, because the cells are equal to one that is present:

* entry points: at the transport, where farthing stands, a call is plain or a stream. ``with_options``, beta, ``parse``
  and raw envelopes send what ``create`` sends (:mod:`.test_entry_points` shows it), so endings are crossed with
  ``create`` plain and streamed, and with the stream helpers, which read and close a stream in their own way.
* statuses: 400, 429, 500 and 529 stand for all errors that bill nothing, 504 and 524 for gateways that gave up.
* helpers: only with endings that happen inside a stream.
* a plain answer has no first event and no middle; a stream is not "cut in its body" twice.
* abandoned, closed early and drained late exist for streams only; a plain answer is whole before its caller has it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

import farthing
from farthing.kernel.balances import change_of
from farthing.kernel.hold import Entry
from farthing.testing import FakeProvider, Reply, ToolCall
from farthing.testing.bill import Billed, cost_nano
from tests.doors import clients
from tests.doors.clients import HASTY, NOTHING, RATES, entries, holds
from tests.doors.ways import Way, run, run_async

pytestmark = pytest.mark.usefixtures("farthing_isolated")

CEILING = 200
"""The output ceiling of every call here."""
MARGIN = 64
PLAIN = (
    Way("chat", "chat.completions.create", "plain"),
    Way("responses", "responses.create", "plain"),
    Way("messages", "messages.create", "plain"),
)
STREAMS = (
    Way("chat", "chat.completions.create", "stream"),
    Way("responses", "responses.create", "stream"),
    Way("messages", "messages.create", "stream"),
)
HELPERS = (
    Way("chat", "chat.completions.stream", "helper", final="get_final_completion"),
    Way("responses", "responses.stream", "helper", final="get_final_response"),
    Way("messages", "messages.stream", "helper", final="get_final_message"),
)


Check = Callable[[Way, Entry, list[Billed]], None]


def as_billed(way: Way, entry: Entry, bill: list[Billed]) -> None:
    """Settled to the provider's own figure."""
    (line,) = bill
    assert (entry.ending, entry.usage_source, entry.suspect) == ("ok", "provider", False)
    assert dict(entry.usage) == line.usage.to_dict()
    assert entry.cost_nano == cost_nano(line.usage, RATES[line.model])


def as_reported_zero(way: Way, entry: Entry, bill: list[Billed]) -> None:
    """Zero reported is zero, whatever we would have counted."""
    assert (entry.ending, entry.usage_source, entry.usage, entry.cost_nano) == ("ok", "provider", (), 0)


def as_counted(way: Way, entry: Entry, bill: list[Billed]) -> None:
    """Complete, without a figure: counted, never less than was billed and never more than was held."""
    assert (entry.ending, entry.usage_source, entry.suspect) == ("ok", "counted", False)
    _covers(way, entry, bill)
    if way.sdk == "openai":
        assert dict(entry.usage) == bill[0].usage.to_dict()


def as_cut(*names: str, delivered: int = 3) -> Check:
    """Cut in the middle: what was delivered, and the abort margin."""

    def check(way: Way, entry: Entry, bill: list[Billed]) -> None:
        assert entry.ending in names
        assert (entry.usage_source, entry.suspect) == ("counted", False)
        _covers(way, entry, bill)
        if way.sdk == "openai":
            assert entry.tokens("output") == delivered + MARGIN == bill[0].usage.output

    return check


def as_held(name: str) -> Check:
    """Settled at the hold: billed for all we know, and nothing in it can be read."""

    def check(way: Way, entry: Entry, bill: list[Billed]) -> None:
        assert (entry.ending, entry.usage_source, entry.suspect) == (name, "estimate", False)
        assert entry.tokens("output") == CEILING
        _covers(way, entry, bill)

    return check


def as_suspect(name: str) -> Check:
    def check(way: Way, entry: Entry, bill: list[Billed]) -> None:
        assert (entry.ending, entry.usage_source, entry.suspect) == (name, "estimate", True)
        assert entry.tokens("output") == CEILING
        _covers(way, entry, bill)

    return check


def as_void(name: str, *, sent: bool = True) -> Check:
    def check(way: Way, entry: Entry, bill: list[Billed]) -> None:
        assert bill == []
        assert (entry.ending, entry.usage, entry.cost_nano, entry.suspect) == (name, (), 0, False)
        assert [made for _, made in entry.changes()] == [change_of("requests", settled=int(sent))]

    return check


def _covers(way: Way, entry: Entry, bill: list[Billed]) -> None:
    """What was billed is in the books, and the books stay within the hold."""
    held = entry.facts.input_tokens + CEILING
    for line in bill:
        assert line.usage.input_tokens <= entry.tokens("input", "cached", "cache_write") <= entry.facts.input_tokens
        assert line.usage.output_tokens <= entry.tokens("output") <= CEILING
        assert cost_nano(line.usage, RATES[line.model]) <= (entry.cost_nano or 0)
    assert entry.tokens("input", "output", "cached", "cache_write") <= held


@dataclass(frozen=True)
class Ending:
    name: str
    ways: Sequence[Way]
    replies: Sequence[Reply]
    checks: Sequence[Check]
    options: dict[str, Any] = field(default_factory=dict)


LONG = 150
_RETRY = {"retry-after-ms": "1"}

ENDINGS = (
    Ending("usage", PLAIN + STREAMS + HELPERS, [Reply(cached_tokens=2)], [as_billed]),
    Ending("tools", PLAIN + STREAMS, [Reply("Looking.", tool_calls=[ToolCall("look", {"at": "it"})])], [as_billed]),
    Ending("cut by its own ceiling", PLAIN + STREAMS, [Reply(output_tokens=10_000)], [as_billed]),
    Ending("gzip in odd pieces", PLAIN + STREAMS, [Reply(gzip=True, split_bytes=7)], [as_billed]),
    Ending("usage absent", PLAIN + STREAMS, [Reply(usage="absent", output_tokens=LONG)], [as_counted]),
    Ending("usage zero", PLAIN + STREAMS, [Reply(usage="zero")], [as_reported_zero]),
    *(
        Ending(f"status {status}", PLAIN + STREAMS, [Reply(status=status)], [as_void(f"http_{status}")])
        for status in (400, 429, 500, 529)
    ),
    *(
        Ending(
            f"status {status}",
            PLAIN + STREAMS,
            [Reply(status=status, output_tokens=LONG, bill_anyway=True)],
            [as_suspect(f"http_{status}")],
        )
        for status in (504, 524)
    ),
    Ending(
        "timeout",
        PLAIN + STREAMS,
        [Reply(fault="hang", output_tokens=LONG, bill_anyway=True)],
        [as_suspect("timeout")],
        {"timeout": HASTY},
    ),
    Ending(
        "reset",
        PLAIN + STREAMS,
        [Reply(fault="reset", output_tokens=LONG, bill_anyway=True)],
        [as_suspect("connection_lost")],
    ),
    Ending(
        "closed unanswered",
        PLAIN + STREAMS,
        [Reply(fault="close_before_answer", bill_anyway=True)],
        [as_suspect("connection_lost")],
    ),
    Ending("body cut", PLAIN, [Reply(fault="close_mid_body", output_tokens=LONG)], [as_suspect("connection_lost")]),
    Ending("garbage", PLAIN, [Reply(fault="garbage", output_tokens=LONG)], [as_held("unreadable")]),
    Ending(
        "stream cut", STREAMS + HELPERS, [Reply(output_tokens=LONG, cut_after_chunks=3)], [as_cut("connection_lost")]
    ),
    Ending(
        "stream stalls",
        STREAMS,
        [Reply(output_tokens=LONG, pause_after_chunks=3)],
        [as_cut("timeout")],
        {"hasty_within": True},
    ),
    Ending("error as first event", STREAMS + HELPERS, [Reply(fault="error_first_event")], [as_void("error")]),
    Ending(
        "error in the middle",
        STREAMS + HELPERS,
        [Reply(fault="error_mid_stream", output_tokens=LONG, cut_after_chunks=3)],
        [as_cut("ended_early", "abandoned")],
    ),
    Ending(
        "retried by the SDK",
        PLAIN + STREAMS,
        [Reply(status=500, headers=_RETRY), Reply(status=500, headers=_RETRY), Reply()],
        [as_void("http_500"), as_void("http_500"), as_billed],
        {"max_retries": 2},
    ),
)
CELLS = [pytest.param(ending, way, id=f"{ending.name}-{way.id}") for ending in ENDINGS for way in ending.ways]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("ending", "way"), CELLS)
def test_ending(ending: Ending, way: Way, asynchronous: bool) -> None:
    def call(provider: FakeProvider, *, governed: bool) -> Any:
        provider.script(ending.replies)
        if asynchronous:
            seen = asyncio.run(run_async(way, provider, governed=governed, **ending.options))
        else:
            seen = run(way, provider, governed=governed, **ending.options)
        provider.wait_idle()
        return seen

    with FakeProvider(now_ms=lambda: 0) as untouched, FakeProvider(now_ms=lambda: 0) as provider:
        wanted = call(untouched, governed=False)
        with farthing.budget(usd=1, tokens=10_000) as budget:
            seen = call(provider, governed=True)
        bill, posts = provider.bill, provider.posts
    assert seen == wanted
    rows = entries()
    assert len(rows) == len(ending.checks) == posts
    for number, (row, check) in enumerate(zip(rows, ending.checks, strict=True), start=1):
        check(way, row, [line for line in bill if line.request.number == number])
    assert budget.held == NOTHING
    assert holds("held") == []
    assert budget.suspect.tokens == sum(row.tokens("input", "output") for row in rows if row.suspect)
    settled = sum(row.tokens("input", "cached", "cache_write", "output") for row in rows if not row.suspect)
    assert budget.spent.tokens == settled


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("way", PLAIN + STREAMS, ids=lambda way: way.id)
def test_a_connection_that_was_never_made_costs_nothing(way: Way, asynchronous: bool) -> None:
    with FakeProvider() as provider:
        gone = provider.openai_url if way.sdk == "openai" else provider.anthropic_url
    wanted = asyncio.run(run_async(way, gone, governed=False)) if asynchronous else run(way, gone, governed=False)
    with farthing.budget(usd=1, tokens=10_000) as budget:
        seen = asyncio.run(run_async(way, gone, governed=True)) if asynchronous else run(way, gone, governed=True)
    assert wanted.error is not None
    assert seen == wanted
    (row,) = entries()
    as_void("connect_error", sent=False)(way, row, [])
    assert budget.held == budget.suspect == budget.spent == NOTHING


# -- what callers do with streams ------------------------------------------------------------------------------------

HALFWAY = Reply(output_tokens=LONG, pause_after_chunks=3)


def _delivered(item: Any) -> int:
    """1 for an object that carries output text."""
    choices = getattr(item, "choices", None)
    if choices:
        return int(bool(choices[0].delta.content))
    return int(item.type in ("response.output_text.delta", "content_block_delta"))


def _begin(way: Way, client: Any) -> Any:
    part = (
        client.messages
        if way.sdk == "anthropic"
        else client.chat.completions
        if way.endpoint == "chat"
        else client.responses
    )
    return part.create(**way.keywords())


@pytest.mark.parametrize("leave", ["close", "break out of with", "collected"])
@pytest.mark.parametrize("way", STREAMS, ids=lambda way: way.id)
def test_a_stream_left_half_way(way: Way, leave: str, fake_provider: FakeProvider) -> None:
    fake_provider.reply = HALFWAY
    make = clients.anthropic_client if way.sdk == "anthropic" else clients.openai_client
    with farthing.budget(usd=1, tokens=10_000) as budget, make(fake_provider) as client:
        stream, seen = _begin(way, client), 0
        for item in stream:
            seen += _delivered(item)
            if seen == 3:
                break
        assert budget.held.tokens == holds()[0].facts.input_tokens + CEILING
        if leave == "close":
            stream.close()
        elif leave == "collected":
            del stream, item  # nothing closes it: it only goes out of reach
            gc.collect()
        else:
            with stream:
                pass
        rows = entries()
        assert budget.held == NOTHING
    fake_provider.wait_idle()
    (row,) = rows
    as_cut("abandoned")(way, row, fake_provider.bill)


@pytest.mark.parametrize("leave", ["close", "collected", "cancelled"])
@pytest.mark.parametrize("way", STREAMS, ids=lambda way: way.id)
def test_an_async_stream_left_half_way(way: Way, leave: str, fake_provider: FakeProvider) -> None:
    fake_provider.reply = HALFWAY

    async def read(stream: Any) -> None:
        seen = 0
        async for item in stream:
            seen += _delivered(item)
            if seen == 3 and leave != "cancelled":
                return
            reached.set() if seen == 3 else None

    async def main() -> None:
        make = clients.async_anthropic_client if way.sdk == "anthropic" else clients.async_openai_client
        async with make(fake_provider) as client:
            stream = await _begin(way, client)
            if leave == "cancelled":
                task = asyncio.create_task(read(stream))
                await reached.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                await read(stream)
            if leave == "close":
                await stream.close()
            del stream
            gc.collect()
            for _ in range(10_000):  # what nobody closes, its loop closes, at its own pace
                if leave == "close" or budget.held == NOTHING:
                    break
                await asyncio.sleep(0)

    reached = asyncio.Event()
    with farthing.budget(usd=1, tokens=10_000) as budget:
        asyncio.run(main())
    (row,) = entries()
    assert budget.held == NOTHING
    fake_provider.wait_idle()
    if leave == "collected" and row.usage_source == "estimate":
        # The loop closed the connection before anybody could look at what had arrived on it: then it counts as held.
        as_held("abandoned")(way, row, fake_provider.bill)
    else:
        as_cut("abandoned", "cancelled")(way, row, fake_provider.bill)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5"])
def test_a_reader_that_stops_at_the_finish_reason_pays_what_was_billed(fake_provider: FakeProvider, model: str) -> None:
    """
    ``if chunk.choices[0].finish_reason: break`` is how many programs read a stream. All was generated and billed by
    then, and the usage frame is the next thing on the wire; nobody reads it.
    """
    fake_provider.reply = Reply(output_tokens=20)
    with clients.openai_client(fake_provider) as client, farthing.budget(tokens=10_000) as budget:
        with client.chat.completions.create(
            model=model, messages=clients.HI, max_completion_tokens=2_000, stream=True
        ) as stream:
            for chunk in stream:
                if chunk.choices[0].finish_reason:
                    break
        assert budget.spent.tokens == fake_provider.billed_tokens == 28


@pytest.mark.parametrize("way", STREAMS, ids=lambda way: way.id)
def test_a_stream_drained_after_its_budget_ended_is_still_on_it(way: Way, fake_provider: FakeProvider) -> None:
    make = clients.anthropic_client if way.sdk == "anthropic" else clients.openai_client
    with make(fake_provider) as client:
        with farthing.track(feature="late"), farthing.budget(usd=1, tokens=10_000) as budget:
            stream = _begin(way, client)
        assert budget.spent.tokens == 0
        assert budget.held.tokens == holds()[0].facts.input_tokens + CEILING
        with farthing.track(feature="other"), farthing.budget(tokens=10_000) as other:
            list(stream)
        (row,) = entries()
        as_billed(way, row, fake_provider.bill)
        assert row.facts.tags == (("feature", "late"),)
        assert budget.held == NOTHING
        assert budget.spent.tokens == fake_provider.billed_tokens
        assert other.spent.tokens == 0
