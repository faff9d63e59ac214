"""The run: warm up, look, make the calls, look again."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import uvloop

from farthing import tokens

from ..bars import Figure
from ..proxy.processes import free_port
from .audit import Books, Found, Sums, audit, read_books
from .clients import MESSAGES, Clients
from .ground import Ground, Vitals, proxy
from .mix import Call, calls
from .provider import MODEL, Provider

SAMPLES = 10
"""Looks at the proxy's memory in the second half."""
SETTLED_SECONDS = 30.0
MIB = 1024 * 1024


@dataclass
class Run:
    """What was seen. ``memory`` is that of the proxy, from the middle to the end."""

    calls: list[Call]
    before: Vitals
    after: Vitals
    seconds: float
    memory: list[int]


class Plan(NamedTuple):
    """One run. ``records``: calls that the proxy keeps to report on; its memory is warm after four times as many."""

    calls: int
    records: int
    warm_up: int = 500
    at_once: int = 96
    seed: int = 20261122


FULL = Plan(100_000, records=5_000)
QUICK = Plan(5_000, records=250)


def measure(*, quick: bool) -> list[Figure]:
    """One run, and all that must not be left, or wrong, after it."""
    return run(QUICK if quick else FULL)


def run(plan: Plan) -> list[Figure]:
    """Raises SystemExit where nothing can be said of the proxy: it did not start, or this bench itself failed."""
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder:
        provider = Provider(prompt_tokens=tokens.count(MESSAGES, MODEL))
        port = free_port()
        with proxy(Path(folder), provider_port=port, records=plan.records) as ground:
            seen = uvloop.run(_run(ground, provider, port, plan))
            complaints = ground.complaints()
        books = read_books(ground.ledger)
    if provider.failures:
        raise SystemExit(f"the provider of this bench failed: {provider.failures[0]!r}")
    kinds, sums = audit(seen.calls, books)
    return [*_of_kinds(kinds), *_verdicts(seen, books, sums, kinds, provider, complaints)]


async def _run(ground: Ground, provider: Provider, port: int, plan: Plan) -> Run:
    server = await asyncio.get_running_loop().create_server(provider.take, "127.0.0.1", port, backlog=4096)
    clients = Clients(ground.port, provider, ground.keys)
    first = list(calls(plan.warm_up, seed=plan.seed + 1, prefix="w"))
    await clients.run(iter(first), plan.at_once)
    before = await _at_rest(ground, provider, None)
    then = list(calls(plan.calls, seed=plan.seed))
    clients.done = 0
    memory: list[int] = []
    looks = asyncio.create_task(_watch(clients, plan.calls, lambda: memory.append(ground.memory())))
    started = time.monotonic()
    await clients.run(iter(then), plan.at_once)
    seconds = time.monotonic() - started
    await looks
    after = await _at_rest(ground, provider, before)
    await asyncio.to_thread(ground.page, "/readyz")
    server.close()
    return Run([*first, *then], before, after, seconds, memory)


async def _watch(clients: Clients, count: int, look: Callable[[], None]) -> None:
    """Look so many times from the middle to the end, by calls."""
    for number in range(SAMPLES + 1):
        while clients.done < count // 2 + (count - count // 2) * number // SAMPLES:
            await asyncio.sleep(0.02)
        look()


async def _at_rest(ground: Ground, provider: Provider, before: Vitals | None) -> Vitals:
    """
    What the proxy has in hand once nobody calls and the provider has ended all idle connections, so that no pool of
    them hides a leak. Waits until it has no more than *before*, or else until it stays the same; not for ever.
    """
    until = time.monotonic() + SETTLED_SECONDS
    last: Vitals | None = None
    while True:
        provider.end_all()
        await asyncio.sleep(0.2)
        now = await asyncio.to_thread(ground.vitals)
        if before is not None and all(mine <= its for mine, its in zip(now, before, strict=True)):
            return now
        if before is None and now == last and not now.calls and not provider.connections:
            return now
        if time.monotonic() > until:
            return now
        last = now


def _of_kinds(kinds: list[Found]) -> list[Figure]:
    return [
        Figure(f"faults: {of.kind.name}", len(of.wrong), "wrong", 0, _beside(of))
        for of in sorted(kinds, key=lambda of: -of.calls)
    ]


def _beside(of: Found) -> str:
    answers = ", ".join(f"{answer} {count:,}" for answer, count in of.answers.most_common(3))
    entries = ", ".join(f"{entry} {count:,}" for entry, count in of.entries.most_common())
    wrong = f"; {of.wrong[0]}" if of.wrong else ""
    return f"{of.calls:,} calls: {answers}; {entries}{wrong}"


def _verdicts(
    seen: Run, books: Books, sums: Sums, kinds: list[Found], provider: Provider, complaints: list[str]
) -> list[Figure]:
    rows = sum(map(len, books.entries.values()))
    denied = sum(of.answers["429"] for of in kinds if of.kind.team == "small")
    start, most = seen.memory[0], max(seen.memory)
    return [
        *_left_open(seen),
        _none("holds left", books.held, "holds", f"{rows:,} entries of {len(seen.calls):,} calls"),
        _none("amounts left held", books.amounts_held, "on accounts"),
        _none("accounts that differ from the journal", books.off, "accounts"),
        _none("budgets passed", books.over, "accounts"),
        _none("entries of nobody's call", books.nameless, "entries"),
        _none("suspects beside those of calls", books.suspects - sums.unknown, "holds", f"{sums.unknown:,} are"),
        Figure(
            "faults: unknown for meeting a connection's end",
            sums.misfortunes,
            "calls",
            provider.hung_up,
            f"the provider ended {provider.hung_up:,} kept connections",
        ),
        _none("denials not counted", abs(denied - books.denials), "denials", f"{denied:,} denied"),
        _none("errors in the proxy's log", len(complaints), "lines", "".join(complaints[:1])[:200]),
        Figure(
            "faults: memory over the second half",
            100 * (most / start - 1),
            "% more",
            5,
            f"{start / MIB:.1f} MiB, then at most {most / MIB:.1f}",
        ),
        Figure(
            "faults: calls",
            len(seen.calls),
            "calls",
            None,
            f"{seen.seconds:.0f} s, {len(seen.calls) / seen.seconds:,.0f}/s; the provider had {sums.heard:,} in hand",
        ),
    ]


def _left_open(seen: Run) -> list[Figure]:
    words = ("descriptors", "threads", "tasks", "connections of clients", "calls in flight")
    return [
        _none(f"{what} left", mine - its, "more", f"{its} after the warm-up, {mine} at the end")
        for what, its, mine in zip(words, seen.before, seen.after, strict=True)
    ]


def _none(what: str, count: int, unit: str, beside: str = "") -> Figure:
    """Of this there may be none."""
    return Figure(f"faults: {what}", count, unit, 0, beside)
