"""Fresh looks at a ledger's keys: one at a time, few in a second, and nobody is refused by one that is too old."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from farthing.admin.keys import create_key
from farthing.errors import StoreUnavailable
from farthing.kernel.keys import KeyRing
from farthing.proxy.callers import looking
from farthing.proxy.callers.identity import Caller, Identity, Refused
from farthing.proxy.callers.keys import KeyIdentify
from farthing.proxy.callers.looking import Looks
from farthing.runtime.runtime import Runtime
from farthing.runtime.settings import Settings
from farthing.stores.contract import Ticket
from farthing.stores.sqlite import SQLiteStore
from farthing.stores.sqlite import store as store_module

MANY = 500


class Ledger:
    """Counts looks. Each begins by saying so and ends when it is let go on, with a ring of its own."""

    def __init__(self) -> None:
        self.looks = self.at_once = self.most_at_once = 0
        self.begun = asyncio.Semaphore(0)
        self.go_on = asyncio.Semaphore(0)
        self.fails = False

    async def look(self) -> KeyRing:
        self.looks += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        ring = KeyRing(self.looks)
        self.begun.release()
        await self.go_on.acquire()
        self.at_once -= 1
        if self.fails:
            raise StoreUnavailable("ledger", "locked")
        return ring


def test_those_who_ask_together_look_once() -> None:
    async def run() -> None:
        ledger = Ledger()
        looks = Looks(ledger.look)
        ledger.go_on.release()
        rings = await asyncio.gather(*(looks.ring() for _ in range(MANY)))
        assert {ring.version for ring in rings} == {1}
        assert ledger.looks == 1

    asyncio.run(run())


def test_who_asks_during_a_look_gets_the_next_one() -> None:
    async def run() -> None:
        ledger = Ledger()
        looks = Looks(ledger.look)
        first = asyncio.create_task(looks.ring())
        await ledger.begun.acquire()
        late = [asyncio.create_task(looks.ring()) for _ in range(MANY)]
        await asyncio.sleep(0)
        for _ in range(2):
            ledger.go_on.release()
        assert (await first).version == 1
        assert {(await task).version for task in late} == {2}
        assert (ledger.looks, ledger.most_at_once) == (2, 1)

    asyncio.run(run())


def test_a_look_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one look the next begins a pause later, whoever asks: a pause without an end shows that it is one."""
    monkeypatch.setattr(looking, "PAUSE_SECONDS", 3_600.0)

    async def run() -> None:
        ledger = Ledger()
        looks = Looks(ledger.look)
        ledger.go_on.release()
        assert (await looks.ring()).version == 1
        flood = [asyncio.create_task(looks.ring()) for _ in range(MANY)]
        await asyncio.sleep(0.05)
        assert ledger.looks == 1
        assert not any(task.done() for task in flood)

    asyncio.run(run())


def test_who_leaves_takes_nothing_from_the_others() -> None:
    async def run() -> None:
        ledger = Ledger()
        looks = Looks(ledger.look)
        leaving, staying = asyncio.create_task(looks.ring()), asyncio.create_task(looks.ring())
        await ledger.begun.acquire()
        leaving.cancel()
        await asyncio.wait([leaving])
        ledger.go_on.release()
        assert (await staying).version == 1
        assert ledger.looks == 1

    asyncio.run(run())


def test_a_look_that_fails_is_everybodys_failure_and_the_next_one_is_new() -> None:
    async def run() -> None:
        ledger = Ledger()
        ledger.fails = True
        ledger.go_on.release()
        looks = Looks(ledger.look)
        failed = await asyncio.gather(looks.ring(), looks.ring(), return_exceptions=True)
        assert [type(error) for error in failed] == [StoreUnavailable] * 2
        ledger.fails = False
        ledger.go_on.release()
        assert (await looks.ring()).version == 2

    asyncio.run(run())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def runtime(path: Path) -> Iterator[Runtime]:
    runtime = Runtime(Settings(ledger=f"sqlite:///{path}"))
    yield runtime
    runtime.close()


def test_keys_that_are_made_up_cost_no_look_each(runtime: Runtime, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = SQLiteStore(path)
    known = create_key(elsewhere, user="somebody")
    store = runtime.main.store
    monkeypatch.setattr(store_module, "KEYS_SECONDS", 3_600.0)
    store.keys(fresh=True).result()
    keys, looks = store.keys, []

    def counted(*, fresh: bool = False) -> Ticket[KeyRing]:
        looks.append(fresh)
        return keys(fresh=fresh)

    monkeypatch.setattr(store, "keys", counted)
    identify = KeyIdentify(runtime)

    async def ask(text: str) -> str:
        try:
            found = identify(Caller(text, {}, "127.0.0.1"))
            identity = found if isinstance(found, Identity) else await found
        except Refused as refused:
            return refused.code
        return dict(identity.tags)["user"]

    async def flood() -> None:
        assert await ask(known.text) == "somebody"
        for shapeless in ("fk_", "fk_x_y", "sk-theirs", known.text[:-1], known.text + "0"):
            assert await ask(shapeless) == "unknown_key"
        assert not any(looks)
        made = create_key(elsewhere, user="new")
        answers = await asyncio.gather(
            *(ask(f"fk_{number:012x}_{number:064x}") for number in range(MANY)), ask(made.text)
        )
        assert answers == ["unknown_key"] * MANY + ["new"]
        assert sum(looks) == 1
        assert await ask(made.text) == "new"
        assert sum(looks) == 1

    asyncio.run(flood())
    elsewhere.close()


def test_a_ledger_in_memory_is_not_looked_at() -> None:
    """It has no keys but those that this process made: what it does not know is refused at once."""
    runtime = Runtime(Settings())
    create_key(runtime.main.store, user="somebody")
    with pytest.raises(Refused) as refused:
        KeyIdentify(runtime)(Caller(f"fk_{'0' * 12}_{'0' * 64}", {}, "127.0.0.1"))
    assert refused.value.code == "unknown_key"
    runtime.close()
