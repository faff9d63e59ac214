"""A locked file, a full disk, a command that cannot be written: what fails, what is kept, who is told."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from farthing.errors import FarthingError, StoreUnavailable
from farthing.kernel.balances import Balance
from farthing.kernel.budget import make_budget
from farthing.kernel.hold import Hold
from farthing.kernel.ledger import Denied, Placed, Settled
from farthing.stores.contract import DenialKey
from farthing.stores.sqlite import SQLiteStore
from farthing.stores.sqlite.connection import connect as open_connection
from farthing.stores.sqlite.files import FileLock
from tests.contract.calls import outcome, plan
from tests.contract.test_holds import total
from tests.waiting import eventually, impatient


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Another process (an open file of its own) is writing, and does not end."""
    lock = FileLock(path.with_name(f"{path.name}-lock"))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
        lock.drop()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """A program that does not know our lock has the file for itself."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def place(store: SQLiteStore, call: str) -> Placed:
    placed = store.place(plan(store, call)).result()
    assert isinstance(placed, Placed)
    return placed


def tokens(store: SQLiteStore) -> Balance:
    return total(store, lambda ticket: ticket.result())


def test_opening_a_locked_file(path: Path) -> None:
    with lock_file(path), pytest.raises(StoreUnavailable, match="locked") as caught:
        SQLiteStore(path, patience_seconds=0.1)
    assert caught.value.store == str(path)
    SQLiteStore(path).close()


@pytest.mark.parametrize("locked", [lock_file, exclusive])
def test_a_locked_file_refuses_holds_keeps_ends_and_says_so(
    store: SQLiteStore, path: Path, locked: object, caplog: pytest.LogCaptureFixture
) -> None:
    held = place(store, "ended").hold
    plans = [plan(store, f"call-{number}") for number in range(3)]
    # Of a program that does not know our lock it is SQLite that has the writer wait, as long as patience goes.
    store._at_work()._connected().execute("PRAGMA busy_timeout = 20")
    with locked(path), impatient(store):  # type: ignore[operator]
        assert store.settle("ended", outcome()).result() == Settled(held, None)
        for planned in plans:
            with pytest.raises(StoreUnavailable):
                store.place(planned).result()
        with pytest.raises(StoreUnavailable):
            store.put_budget(make_budget("b2", tokens=1)).result()
    assert tokens(store) in (Balance(120), Balance(0, 150))  # the end may still wait for its next try
    eventually(lambda: tokens(store) == Balance(120))
    assert [entry.id for entry in store.entries().result()] == ["ended"]
    assert store.holds().result() == ()
    assert isinstance(store.place(plan(store, "next")).result(), Placed)


@pytest.mark.parametrize("locked", [lock_file, exclusive])
def test_counts_of_denials_wait_for_a_locked_file(store: SQLiteStore, path: Path, locked: object) -> None:
    key = DenialKey(0, "b", "tokens", "gpt-4o", "openai", (), shadow=False)
    with locked(path), impatient(store):  # type: ignore[operator]
        for count in (3, 4):
            with pytest.raises(StoreUnavailable):
                store.add_denials({key: count}).result()
    eventually(lambda: store._at_work().why_not_wait() is None)
    store.add_denials({key: 5}).result()
    assert store.denials().result() == {key: 12}


@pytest.mark.parametrize("locked", [lock_file, exclusive])
def test_a_question_whether_it_answers_leaves_nothing_behind(
    store: SQLiteStore, path: Path, locked: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Load balancers ask for days: that was kept like the end of a call, and said to be one."""
    with locked(path), impatient(store):  # type: ignore[operator]
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as failed:
                store.add_denials({}).result()
            assert "kept" not in str(failed.value)
        assert not store._at_work()._backlog.tickets
    eventually(lambda: store._at_work().why_not_wait() is None)
    store.add_denials({}).result()
    assert "kept in memory" not in caplog.text


def shut_out(store: SQLiteStore, path: Path, held: Hold, what: str) -> None:
    """Nothing is held or read where others have another ledger; a call that ends is told no error."""
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=f"{what} while it was in use"):
            store.place(plan(store, "new")).result()
    with pytest.raises(StoreUnavailable, match=what):
        store.entries().result()
    assert store.settle(held.id, outcome()).result() == Settled(held, None)


def test_a_file_that_is_removed(store: SQLiteStore, path: Path) -> None:
    held = place(store, "ended").hold
    aside = path.with_name("aside.db")
    path.rename(aside)
    shut_out(store, path, held, "removed")
    assert not path.exists(), "no empty file is made in its place"
    aside.rename(path)
    eventually(lambda: tokens(store) == Balance(120))
    assert isinstance(store.place(plan(store, "next")).result(), Placed)


def test_a_file_that_is_replaced(store: SQLiteStore, path: Path) -> None:
    """By an older copy of itself, say: what was spent since is not in it."""
    held = place(store, "ended").hold
    aside = path.with_name("aside.db")
    path.rename(aside)
    other = SQLiteStore(path.with_name("other.db"))
    other.put_budget(make_budget("b", tokens=1_000, usd=1)).result()
    other.close()
    path.with_name("other.db").rename(path)
    shut_out(store, path, held, "replaced by another")
    aside.rename(path)
    eventually(lambda: tokens(store) == Balance(120))


def copy(source: Path, target: Path) -> None:
    """As `sqlite3 target ".restore source"` does: into the very file, whoever has it open."""
    with closing(sqlite3.connect(source)) as from_file, closing(sqlite3.connect(target)) as to_file:
        from_file.backup(to_file)


def test_a_file_that_is_restored_from_an_older_copy(store: SQLiteStore, path: Path) -> None:
    """It is the same file, and what was spent since is not in it: that was admitted a second time."""
    place(store, "before")
    store.settle("before", outcome()).result()
    older, newer = path.with_name("older.db"), path.with_name("newer.db")
    copy(path, older)
    for call in ("since", "ended"):
        held = place(store, call).hold
    store.settle("since", outcome()).result()
    copy(path, newer)
    copy(older, path)
    with pytest.raises(StoreUnavailable, match="less is in the file than was written to it"):
        store.place(plan(store, "new", budgets=["b"])).result()
    assert store.settle("ended", outcome()).result() == Settled(held, None)
    copy(newer, path)
    eventually(lambda: tokens(store) == Balance(360))
    assert isinstance(store.place(plan(store, "next")).result(), Placed)


def test_a_file_that_is_emptied(store: SQLiteStore, path: Path) -> None:
    """Its budgets are gone: "its budgets changed 100 times while one call was planned" said nothing of that."""
    planned = plan(store, "new")
    empty = path.with_name("empty.db")
    SQLiteStore(empty).close()
    copy(empty, path)
    with pytest.raises(StoreUnavailable, match="start this process anew"):
        store.place(planned).result()
    # Who comes to it anew finds an empty ledger.
    other = SQLiteStore(path)
    assert other.catalogue().result().budgets == {}
    other.close()


def test_a_log_that_is_removed_under_two_processes(path: Path) -> None:
    """
    The first to notice opens the file without what stood in the log, and takes nothing for true that is less than it
    knows. When the other closes the file the log goes into it, and both go on (unless the first has it open just then).
    """
    workers = [spender(path) for _ in range(2)]
    try:
        assert [ask_worker(worker, 5) for worker in workers] == [5, 5]
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        assert [ask_worker(worker, 15) for worker in workers] == [15, 15]
        for name in ("-wal", "-shm"):
            path.with_name(f"{path.name}{name}").unlink()
        admitted = 40 + sum(ask_worker(worker, 40) for worker in workers * 2)
        assert 40 <= admitted <= 100
    finally:
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()


def spender(path: Path) -> subprocess.Popen[str]:
    """A process that spends tokens of a budget of 1,000, ten a call, as many calls as each line says."""
    program = """if True:
        import sys
        import farthing
        farthing.configure(ledger=f"sqlite:///{sys.argv[1]}")
        for line in sys.stdin:
            done = 0
            for _ in range(int(line)):
                try:
                    with farthing.budget("b", tokens=1_000), farthing.hold(tokens=10):
                        done += 1
                except (farthing.BudgetExceeded, farthing.StoreUnavailable):
                    pass
            print(done, flush=True)
    """
    command = [sys.executable, "-c", program, str(path)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def ask_worker(worker: subprocess.Popen[str], calls: int) -> int:
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(calls, file=worker.stdin, flush=True)
    return int(worker.stdout.readline())


def test_a_schema_that_is_brought_forward_while_it_is_in_use(store: SQLiteStore, path: Path) -> None:
    """By a newer farthing. Its rows may look as before and mean something else, so nothing is read into them."""
    held = place(store, "ended").hold
    newer = sqlite3.connect(path)
    (version,) = newer.execute("PRAGMA user_version").fetchone()
    newer.execute(f"PRAGMA user_version = {version + 1}")
    for ask in (lambda: store.place(plan(store, "new")), store.entries, lambda: store.balances(["b"])):
        with pytest.raises(StoreUnavailable) as caught:
            ask().result()
        assert str(caught.value).count("unavailable") == 1
        assert f"its schema has version {version + 1}" in caught.value.reason
    assert store.settle(held.id, outcome()).result() == Settled(held, None)
    newer.execute(f"PRAGMA user_version = {version}")
    newer.close()
    eventually(lambda: tokens(store) == Balance(120))
    assert [entry.id for entry in store.entries().result()] == ["ended"]


PASSER_BY = "import sys; from farthing.stores.sqlite import SQLiteStore; SQLiteStore(sys.argv[1]).close()"


def test_a_program_that_copies_its_own_ledger(store: SQLiteStore, path: Path, tmp_path: Path) -> None:
    """
    That takes SQLite's locks off the file, for they belong to the process. The next program that closes the ledger
    takes the log away; nobody goes on without it.
    """
    place(store, "one")
    shutil.copy(path, tmp_path / "copy.db")
    subprocess.run([sys.executable, "-c", PASSER_BY, str(path)], check=True, timeout=60)
    place(store, "two")
    assert len(store.holds().result()) == 2
    other = SQLiteStore(path)
    assert sorted(hold.id for hold in other.holds().result()) == ["one", "two"]
    other.close()


def fill(store: SQLiteStore) -> None:
    """The disk is full: SQLite may use no page more than it has."""
    connection = store._at_work()._connected()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


def stay_full(monkeypatch: pytest.MonkeyPatch, store: SQLiteStore) -> None:
    """Also for connections that are opened later."""
    from farthing.stores.sqlite import writer

    connect = open_connection

    def full(file: str, *, busy_seconds: float) -> sqlite3.Connection:
        connection = connect(file, busy_seconds=busy_seconds)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(writer, "connect", full)
    fill(store)


def test_a_disk_that_fills_at_settle(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = [place(store, f"call-{number}").hold for number in range(4)]
    budgets = [make_budget(f"big-{number}", tokens=1, description="x" * 3_000) for number in range(20)]
    big = outcome(note="y" * 50_000)
    stay_full(monkeypatch, store)
    with pytest.raises(StoreUnavailable, match="database or disk is full; make room on its disk"):
        any(store.put_budget(budget).result() is None for budget in budgets)
    known = store.catalogue().result()

    # The calls are over and paid: their ends are accepted, in order, also those that would fit.
    for hold in held:
        assert store.settle(hold.id, big).result() == Settled(hold, None)
    assert store.void("call-0").result() == Settled(held[0], None)
    assert caplog.text.count("the ends of calls are kept in memory") == 1

    # No hold is admitted on balances that the file does not have.
    with pytest.raises(StoreUnavailable, match=r"\d ended calls wait"):
        store.place(plan(store, "new")).result()
    assert tokens(store) == Balance(0, 600)
    assert store.entries().result() == []

    monkeypatch.undo()
    store._at_work()._disconnect_safely()
    eventually(lambda: tokens(store) == Balance(480))
    assert [entry.note for entry in store.entries().result()] == [big.note] * 4
    assert "can be written again" in caplog.text
    # The void that came after its hold's settle is a conflict, and somebody must know.
    assert store.catalogue().result() == known
    assert caplog.text.count("what a call said at its end could not be carried out") == 1
    assert isinstance(store.place(plan(store, "new", budgets=["b"])).result(), Placed)


def test_a_hold_that_nobody_took_is_among_what_is_lost(
    store: SQLiteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be given back any more: whoever reads the log must not miss it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        other = SQLiteStore(path)
        place(other, "call")
        dropped = [other.place(plan(other, "dropped"))]
        eventually(lambda: dropped[0].placed)
        stay_full(monkeypatch, other)
        other.settle("call", outcome(note="y" * 200_000)).result()
        dropped.clear()
        eventually(lambda: len(other._at_work()._backlog.tickets) == 2)
        other.close()
    assert "2 calls will be shown as suspect" in caplog.text
    assert "nobody asked" not in caplog.text
    assert sorted(settled.hold.id for settled in store.sweep().result()) == ["call", "dropped"]


def test_a_disk_that_is_full_until_the_end(store: SQLiteStore, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        other = SQLiteStore(path)
        place(other, "call")
        stay_full(monkeypatch, other)
        other.settle("call", outcome(note="y" * 200_000)).result()
        other.close()
    assert "1 call will be shown as suspect" in caplog.text
    (settled,) = store.sweep().result()
    assert (settled.hold.id, settled.hold.state) == ("call", "suspect")
    # Its truth may still come.
    store.settle("call", outcome()).result()
    assert tokens(store) == Balance(120)


def test_denials_that_are_lost_with_a_full_disk_are_said(
    store: SQLiteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        other = SQLiteStore(path)
        stay_full(monkeypatch, other)
        key = DenialKey(0, "b" * 200_000, "tokens", "gpt-4o", "openai", (), shadow=False)
        with pytest.raises(StoreUnavailable):
            other.add_denials({key: 1}).result()
        other.close()
    assert "what was denied meanwhile is missing from reports" in caplog.text
    assert "suspect" not in caplog.text
    assert store.denials().result() == {}


def test_what_was_said_of_a_kept_end_stays_said(store: SQLiteStore, path: Path) -> None:
    """Its caller may look at it when it was tried once more already."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        other = SQLiteStore(path)
        stay_full(monkeypatch, other)
        key = DenialKey(0, "b" * 200_000, "tokens", "gpt-4o", "openai", (), shadow=False)
        kept = other.add_denials({key: 1})
        eventually(lambda: kept.done)
        with pytest.raises(StoreUnavailable, match="waits to be written first"):
            other.place(plan(other, "later")).result()
        with pytest.raises(StoreUnavailable, match="written as soon as that is possible"):
            kept.result()
        other.close()
    assert store.denials().result() == {}


FULL_DISK = """
import resource, sys, logging
from farthing.stores.sqlite import SQLiteStore
from farthing.errors import StoreUnavailable
from tests.contract.calls import plan, outcome
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
logging.disable()
store = SQLiteStore(sys.argv[1])
admitted = []
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    for number in range(10_000):
        store.place(plan(store, f"call-{number}")).result()
        admitted.append(number)
except StoreUnavailable as error:
    refused = str(error)
for number in admitted:
    store.settle(f"call-{number}", outcome()).result()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
while store.holds().result():
    pass
print(len(admitted), len(store.entries().result()), refused)
store.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_file_that_cannot_grow(store: SQLiteStore, path: Path) -> None:
    """The same with the operating system's own refusal: nothing is lost once there is room again."""
    store.put_budget(make_budget("b", tokens=10**9), update=True).result()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    admitted, entries, refused = done.stdout.strip().split(" ", 2)
    assert 0 < int(admitted) < 10_000
    assert entries == admitted
    assert str(path) in refused
    assert tokens(store) == Balance(120 * int(admitted))


def test_what_cannot_be_written_fails_alone(store: SQLiteStore, caplog: pytest.LogCaptureFixture) -> None:
    place(store, "call")
    store._at_work()._gate.acquire()
    good, bad = plan(store, "good"), plan(store, "bad", tags={"run": "\ud800"})
    too_much = bad._replace(id="too much", x_want=2**70, lines=())
    admitted, refused, settled = store.place(good), store.place(too_much), store.settle("call", outcome())
    store._at_work()._gate.release()
    assert isinstance(admitted.result(), Placed)
    with pytest.raises(FarthingError):
        refused.result()
    settled.result()
    assert [hold.id for hold in store.holds().result()] == ["good"]
    assert tokens(store) == Balance(120, 150)


def test_text_that_is_no_text_is_kept_or_refused_but_breaks_nothing(store: SQLiteStore) -> None:
    bad = plan(store, "bad", tags={"run": "\ud800"})
    assert isinstance(store.place(bad).result(), Placed)
    assert store.holds().result()[0].facts == bad.facts
    with pytest.raises(FarthingError, match="cannot be written"):
        store.suspect("bad", ending="timeout", note="\ud800").result()
    store.void("bad").result()
    assert store.holds().result() == ()


def test_a_fault_of_ours_is_the_answer_of_that_command(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object, **more: object) -> None:
        raise KeyError("a bug")

    planned = plan(store, "call")
    with monkeypatch.context() as patch:
        patch.setattr("farthing.stores.sqlite.store.ledger.place", broken)
        with pytest.raises(KeyError, match="a bug"):
            store.place(planned).result()
    assert "unforeseen" in caplog.text
    assert isinstance(store.place(planned).result(), Placed)


def test_a_commit_that_fails_answers_all_and_changes_nothing(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store._at_work()

    def broken() -> int:
        raise sqlite3.OperationalError("disk I/O error")

    planned = plan(store, "call")
    with monkeypatch.context() as patch:
        patch.setattr(writer.books, "write", broken)
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            store.place(planned).result()
    assert tokens(store) == Balance()
    assert isinstance(store.place(planned).result(), Placed)


def test_a_wrong_clock_is_said_once_and_not_followed(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from farthing.testing import FakeClock

    right, wrong = FakeClock(), FakeClock()
    wrong.advance(hours=2)
    ahead = SQLiteStore(path, clock=wrong)
    ahead.put_budget(make_budget("b", tokens=1_000)).result()
    store = SQLiteStore(path, clock=right)
    store.put_budget(make_budget("b2", tokens=1_000)).result()
    assert store.now() == right()
    store.put_budget(make_budget("b3", tokens=1_000)).result()
    assert caplog.text.count("ahead of this machine's clock") == 1
    ahead.close()
    store.close()


def test_last_seen_time_survives_a_restart(path: Path) -> None:
    from farthing.testing import FakeClock

    clock = FakeClock()
    store = SQLiteStore(path, clock=clock)
    clock.advance(minutes=30)
    store.put_budget(make_budget("b", tokens=1_000)).result()
    seen = store.now()
    store.close()
    clock.jump_back(minutes=30)
    store = SQLiteStore(path, clock=clock)
    store.balances([]).result()
    assert store.now() == seen
    store.close()


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
def test_a_hold_is_synced_to_the_disk_and_its_end_follows_with_the_next(
    path: Path, durability: str, level: int
) -> None:
    store = SQLiteStore(path, durability=durability)
    store.put_budget(make_budget("b", tokens=1_000)).result()
    connection = store._at_work()._connected()

    def synchronous() -> int:
        (value,) = connection.execute("PRAGMA synchronous").fetchone()
        return int(value)

    place(store, "call")
    assert synchronous() == level
    store.settle("call", outcome()).result()
    assert synchronous() == 1
    place(store, "next")
    assert synchronous() == level
    store.close()


def test_a_denial_writes_nothing(store: SQLiteStore) -> None:
    planned = plan(store, "call", input_tokens=10_000)
    store.balances([]).result()
    said: list[str] = []
    store._at_work()._connected().set_trace_callback(said.append)
    assert isinstance(store.place(planned).result(), Denied)
    assert not [sql for sql in said if sql.startswith(("INSERT", "UPDATE", "DELETE"))]


def test_the_log_is_moved_into_the_file(store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing.stores.sqlite.writer.CHECKPOINT_ROWS", 50)
    before = path.stat().st_size
    for number in range(30):
        store.record(plan(store, f"call-{number}", budgets=[]), outcome(note="z" * 1_000)).result()
    eventually(lambda: path.stat().st_size > before)
