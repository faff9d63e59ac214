"""Threads that follow the scope they are started in, where starting them is not plain sailing."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

import farthing
from farthing.runtime import threads
from farthing.runtime.ambient import current

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def tags() -> dict[str, str]:
    return dict(current().tags)


def test_a_thread_that_the_system_could_not_start_can_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    thread = threading.Thread(target=lambda: seen.append(tags()))

    def refuse(*given: Any, **named: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, farthing.track(a=1):
        for name in ("_start_new_thread", "_start_joinable_thread"):
            if hasattr(threading, name):
                patch.setattr(threading, name, refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            thread.start()
    with farthing.track(b=2):
        thread.start()
    thread.join()
    assert seen == [{"b": "2"}]
    assert "run" not in vars(thread)


def test_a_thread_whose_run_was_given_to_it_keeps_it() -> None:
    seen: list[dict[str, str]] = []

    def run() -> None:
        seen.append(tags())

    thread = threading.Thread()
    thread.run = run  # type: ignore[method-assign]
    with farthing.track(a=1):
        thread.start()
    thread.join()
    assert seen == [{"a": "1"}]
    assert thread.run is run


def test_nobody_goes_on_before_all_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads enter their first budgets at once: what the second starts then must have its budget too."""
    threads.follow(False)
    halfway, go_on = threading.Event(), threading.Event()
    replace = threads._replace

    def slowly(owner: Any, name: str, make: Any) -> None:
        replace(owner, name, make)
        halfway.set()
        go_on.wait()

    monkeypatch.setattr(threads, "_replace", slowly)
    seen: list[bool] = []

    def second() -> None:
        threads.follow()
        seen.append("__wrapped__" in vars(ThreadPoolExecutor.submit))

    first, other = threading.Thread(target=threads.follow), threading.Thread(target=second)
    first.start()
    halfway.wait()
    other.start()
    other.join(0.05)
    go_on.set()
    first.join()
    other.join()
    assert seen == [True]


def test_what_was_left_half_done_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    threads.follow(False)
    start = threading.Thread.start

    def fails(owner: Any, name: str, make: Any) -> None:
        threads._originals.append((owner, name, getattr(owner, name)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threads, "_replace", fails)
        with pytest.raises(KeyboardInterrupt):
            threads.follow()
    threads.follow()
    assert threading.Thread.start.__wrapped__ is start  # type: ignore[attr-defined]
    threads.follow(False)
    assert threading.Thread.start is start


OUTLIVES_THE_MAIN_THREAD = """
import threading, farthing

def work():
    main.join()
    with farthing.budget("week", tokens=5) as week:
        inner = threading.Thread(target=lambda: farthing.record({"input_tokens": 3}, model="gpt-4o"))
        inner.start()
        inner.join()
    print(week.spent.tokens)

main = threading.main_thread()
threading.Thread(target=work).start()
"""


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="once the main thread has ended, 3.12 starts no other")
def test_a_thread_that_outlives_the_main_one_may_be_the_first_to_use_a_budget() -> None:
    """The interpreter waits for it, and loads no thread pool any more."""
    done = subprocess.run(
        [sys.executable, "-c", OUTLIVES_THE_MAIN_THREAD], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stdout, done.stderr) == ("3\n", "")


GREENLETS = """
import sys

if "patched" in sys.argv:
    from gevent import monkey; monkey.patch_all()

import farthing
from farthing import BudgetExceeded, budget, configure

configure(ledger=sys.argv[1])
if "late" in sys.argv:
    with budget(tokens=1):
        pass

import gevent.pool, gevent.threadpool

def work(*ignored):
    try:
        with farthing.hold(tokens=10, model="gpt-4o") as held:
            gevent.sleep(0)
            held.settle({"output_tokens": 10})
        return 1
    except BudgetExceeded:
        return 0

def ran(how, tasks):
    gevent.joinall(tasks)
    print(how, sum(task.value for task in tasks), "within", day.spent.tokens)

group, threads = gevent.pool.Pool(3), gevent.threadpool.ThreadPool(3)
for how, begin in {
    "greenlets": gevent.spawn,
    "later": lambda work: gevent.spawn_later(0, work),
    "pooled": group.spawn,
    "threads": lambda work: threads.spawn(work),
}.items():
    with budget(None if sys.argv[1] == "memory:" else how, tokens=50) as day:
        ran(how, [begin(work) for _ in range(20)])

free = gevent.spawn(work)
gevent.joinall([free])
print("outside", free.value, "within", day.spent.tokens)
"""


@pytest.mark.parametrize("order", [["patched"], [], ["late"]])
@pytest.mark.parametrize("ledger", ["memory", "file"])
def test_greenlets_follow(order: list[str], ledger: str, tmp_path: Path) -> None:
    """Each begins with an empty context: twenty of them had twenty budgets."""
    pytest.importorskip("gevent")
    where = "memory:" if ledger == "memory" else f"sqlite:///{tmp_path / 'ledger.db'}"
    done = subprocess.run(
        [sys.executable, "-c", GREENLETS, where, *order], capture_output=True, text=True, timeout=100, check=False
    )
    within = "".join(f"{how} 5 within 50\n" for how in ("greenlets", "later", "pooled", "threads"))
    assert (done.stdout, done.stderr) == (within + "outside 1 within 50\n", "")


def test_without_gevent_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """``None`` in its place is how a program, or its tests, say that it is not to be loaded."""
    monkeypatch.setitem(sys.modules, "gevent", None)
    with farthing.budget(tokens=5), farthing.track(a=1):
        assert tags() == {"a": "1"}


def test_a_greenlet_that_shares_a_context() -> None:
    """As greenlet's documentation shares one; somebody is in it, so nobody else can be run in it."""
    gevent, greenlet = pytest.importorskip("gevent"), pytest.importorskip("greenlet")
    seen: list[dict[str, str]] = []

    def main() -> None:
        with farthing.track(a=1):
            shares = gevent.Greenlet(lambda: seen.append(tags()))
            shares.gr_context = greenlet.getcurrent().gr_context
            shares.start()
            shares.join()

    copy_context().run(main)
    assert seen == [{"a": "1"}]
