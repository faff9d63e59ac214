"""The proxy's loads and bars, each figure beside nginx in the same run, and the books after each load."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ..bars import Figure
from .books import Books
from .load import Load, Measured, request, run
from .relays import BARE, DIRECT, FARTHING, NGINX, Field, field

RESULTS = Path(__file__).parent / "results.json"
MIB = 1024 * 1024

PLAIN, HALF, ALONE, SECURE = "plain", "plain at half load", "plain, 1 connection", "plain, TLS upstream"
BURST, PACED, DENIED = "stream in a burst", "stream, paced", "denied"


def loads(*, quick: bool) -> list[Load]:
    """What every relay is put through, round by round."""
    seconds = 0.7 if quick else 2.0
    return [
        Load(PLAIN, 64, seconds, request()),
        Load(HALF, 64, seconds, request(), rate=0.5),
        Load(ALONE, 1, seconds, request()),
        Load(SECURE, 64, seconds, request(path="/tls")),
        Load(BURST, 32, seconds, request(stream=True)),
        Load(PACED, 20, seconds, request(stream=True, marks="PACE=2000;")),
        Load(DENIED, 64, 1.0, request(path="/denied", headers=("x-farthing-tags: team=nobody",)), status=429),
    ]


def slow_loads(*, quick: bool) -> list[Load]:
    """Many streams at once, each with little to say."""
    slow = request(stream=True, marks="PACE=1000000;EVENTS=4;")
    return [Load(_slow(count), count, 60, slow, count=count) for count in ([1_000] if quick else [1_000, 5_000])]


def _slow(count: int) -> str:
    return f"{count:,} slow streams"


def measure(*, quick: bool) -> list[Figure]:
    """Some rounds of each load; of each figure the least, for whatever else this machine does only adds to it."""
    with tempfile.TemporaryDirectory(prefix="farthing-bench-") as folder, field(Path(folder)) as ground:
        bench = Bench(ground)
        for name in ground.relays:
            bench.run(Load("warm-up", 64, 0.5 if quick else 1.5, request()), name)
        for number in range(1 if quick else 3):
            for load in loads(quick=quick) + (slow_loads(quick=quick) if number == 0 else []):
                for name in ground.relays:
                    if _applies(load, name):
                        bench.run(load, name)
    RESULTS.write_text(json.dumps([measured.to_dict() for measured in bench.raw], indent=1) + "\n")
    return figures(bench, slow=[load.name for load in slow_loads(quick=quick)])


def _applies(load: Load, relay: str) -> bool:
    if load.name == DENIED:
        return relay == FARTHING
    return load.name != SECURE or relay != DIRECT


class Bench:
    """The runs so far."""

    def __init__(self, ground: Field) -> None:
        self.raw: list[Measured] = []
        self._ground = ground
        self._books = Books(ground.provider.port, ground.ledger)

    def run(self, load: Load, name: str) -> None:
        """Raises SystemExit: an answer that is not good, or books that differ."""
        if name != FARTHING:
            self._run(load, name)
            return
        with self._books.audited(load.name):
            self._run(load, name)

    def _run(self, load: Load, name: str) -> None:
        relay = self._ground.relays[name]
        rate = 0.0 if load.rate is None else load.rate * self.most(PLAIN, name)
        measured = run(
            load,
            name,
            relay.port,
            generator=self._ground.generator,
            folder=self._ground.folder,
            rate=rate,
            cpu=relay.cpu,
            memory=relay.memory,
            written=relay.written,
        )
        self.raw.append(measured)
        if measured.bad:
            log = (self._ground.folder / f"{name.replace(' ', '-')}.log").read_text(errors="replace")[-3000:]
            raise SystemExit(f"{load.name}, {name}: {measured.bad} bad answers, first {measured.complaint!r}\n{log}")

    def least(self, load: str, relay: str, figure: str) -> float:
        """The least of a figure over all rounds."""
        return min(float(getattr(each, figure)) for each in self.raw if (each.load, each.relay) == (load, relay))

    def most(self, load: str, relay: str) -> float:
        """The most calls a second of all rounds."""
        return max(each.per_second for each in self.raw if (each.load, each.relay) == (load, relay))


def figures(bench: Bench, *, slow: list[str]) -> list[Figure]:
    """The bars, and what they were taken beside."""
    found = [
        _cpu(bench, PLAIN, 8, "64 connections"),
        _cpu(bench, SECURE, None, "64 connections"),
        _cpu(bench, BURST, 4, "50 chunks, 32 connections"),
        _cpu(bench, PACED, 4, "50 chunks, 2 ms apart, 20 connections"),
        _denied(bench),
        *_added(bench, ALONE, ("p50", "p99"), bar=1.5),
        *_added(bench, HALF, ("p50", "p99"), bar=None),
        *_added(bench, PACED, ("first_p50",), bar=1.5),
    ]
    for name in slow:
        beside = ", ".join(f"{relay} {bench.least(name, relay, 'memory') / MIB:,.0f}" for relay in (BARE, NGINX))
        bar = 250 if name == slow[0] else None
        found.append(Figure(f"proxy, {name}: memory", bench.least(name, FARTHING, "memory") / MIB, "MiB", bar, beside))
    return found


def _cpu(bench: Bench, load: str, bar: float | None, how: str) -> Figure:
    cost = {relay: bench.least(load, relay, "cpu") for relay in (FARTHING, BARE, NGINX)}
    rates = f"{bench.most(load, FARTHING):,.0f} calls/s, nginx {bench.most(load, NGINX):,.0f}"
    each = f"{cost[FARTHING]:,.0f} µs a call, {BARE} {cost[BARE]:,.0f}, nginx {cost[NGINX]:,.0f}"
    return Figure(f"proxy, {load} ({how}): CPU", cost[FARTHING] / cost[NGINX], "× nginx", bar, f"{each}; {rates}")


def _denied(bench: Bench) -> Figure:
    denied, admitted = bench.least(DENIED, FARTHING, "cpu"), bench.least(PLAIN, FARTHING, "cpu")
    beside = f"{denied:,.0f} µs a refusal, {bench.most(DENIED, FARTHING):,.0f} a second"
    return Figure("proxy, denied: CPU", denied / admitted, "× admitted", 0.5, beside)


def _added(bench: Bench, load: str, parts: tuple[str, ...], *, bar: float | None) -> list[Figure]:
    """Milliseconds more than without a relay."""
    found = []
    for part in parts:
        took = {relay: bench.least(load, relay, part) for relay in (FARTHING, BARE, NGINX, DIRECT)}
        added = {relay: (took[relay] - took[DIRECT]) / 1000 for relay in took}
        beside = f"{BARE} {added[BARE]:.2f}, nginx {added[NGINX]:.2f}; direct takes {took[DIRECT] / 1000:.2f}"
        what = f"first byte {part[-3:]}" if part.startswith("first") else part
        found.append(
            Figure(f"proxy, {load}: added {what}", added[FARTHING], "ms", bar if "50" in part else None, beside)
        )
    return found
