"""What a forked child finds: neither its parent's accounts, nor its queues, nor a lock that nobody will open."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import farthing
from farthing import tokens
from farthing.agents.confidence import Gates
from farthing.agents.past import Past
from farthing.runtime import default, threads
from farthing.runtime.default import runtime
from farthing.runtime.waiting import queue_of
from farthing.sdk import install, seams
from farthing.tokens.segments import kept

pytestmark = [
    pytest.mark.usefixtures("farthing_isolated"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
]
LONG = "a text that is long enough to be kept " * 20


def in_a_child(work: Callable[[], Any]) -> Any:
    """What *work* returned in a forked child; one that hangs is ended, and said nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            os.write(write, json.dumps(work()).encode())
        except BaseException:  # noqa: BLE001 - whatever it is: the parent only sees that nothing came
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


def attempt(amount: int) -> str:
    try:
        with farthing.hold(tokens=amount):
            return "held"
    except farthing.BudgetExceeded as denied:
        return str(denied)


def test_a_standing_budget_in_memory_is_not_gone() -> None:
    """A server that is configured, and then forks its workers: each would call without any budget."""
    farthing.configure(config={"budgets": [{"name": "all", "tokens": 100}]})

    def child() -> list[str]:
        before = attempt(1)
        farthing.configure(config={"budgets": [{"name": "all", "tokens": 100}]})
        return [before, attempt(60), attempt(60)]

    before, own, beyond = in_a_child(child)
    assert before.startswith("budget 'all' was named before this process was forked")
    assert own == "held", "named anew, it is the child's own"
    assert "40 tokens remain" in beyond
    assert attempt(100) == "held", "the parent's is as it was"


def test_a_standing_budget_in_memory_refuses_what_nothing_can_measure() -> None:
    farthing.configure(config={"budgets": [{"name": "openai", "tokens": 100, "scope": {"provider": "openai"}}]})

    def child() -> list[str | None]:
        here = runtime()
        budgets = (here.hard_budget(farthing.runtime.ambient.NOWHERE, {"provider": of}) for of in ("openai", "google"))
        return [budget and budget.name for budget in budgets]

    assert in_a_child(child) == ["openai", None]


def test_a_budget_that_only_warns_lets_everything_pass() -> None:
    farthing.configure(config={"budgets": [{"name": "all", "tokens": 100, "on_exceed": "warn"}]})
    assert in_a_child(lambda: attempt(101)) == "held"


def test_nobody_of_the_parent_stands_in_the_childs_line() -> None:
    budget = farthing.budget("queued", tokens=5, on_exceed="wait").terms
    place = runtime().line.join(frozenset({queue_of(budget, {})}))
    assert in_a_child(lambda: len(runtime().line.waiting)) == 0
    place.leave()


@pytest.mark.parametrize(
    "whose",
    [
        "texts",
        "ratios",
        "catalogue",
        "opening",
        "housekeeper",
        "default",
        "threads",
        "install",
        "seams",
        "past",
        "gates",
    ],
)
def test_a_lock_that_another_thread_had_is_open(whose: str) -> None:
    here = runtime()
    farthing.budget("named", tokens=1_000).__enter__().__exit__(None, None, None)
    past, gates = Past(), Gates()
    locks: dict[str, Any] = {
        "texts": kept._lock,
        "ratios": here.learner._lock,
        "catalogue": here.memory._refreshing,
        "opening": here._opening,
        "housekeeper": here.housekeeper._ending,
        "default": default._lock,
        "threads": threads._lock,
        "install": install._lock,
        "seams": seams._lock,
        "past": past._lock,
        "gates": gates._lock,
    }
    taken, done = threading.Event(), threading.Event()

    def take() -> None:
        with locks[whose]:
            taken.set()
            done.wait()

    def child() -> int:
        here.housekeeper.put(lambda: None)
        here.learner.ratios()
        farthing.configure(max_records=10)
        with farthing.budget("other", tokens=1_000) as other:
            attempt(7)
            assert tokens.count(LONG) > 0
            assert (past.typical_total(), gates.answer(None)) == (None, None)
            farthing.install()
            farthing.uninstall()
            threads.follow(False)
            spent = other.spent.tokens or 0
        farthing.reset()
        runtime()
        return spent

    thread = threading.Thread(target=take)
    thread.start()
    taken.wait()
    try:
        with contextlib.suppress(json.JSONDecodeError):
            assert in_a_child(child) == 7
            return
        pytest.fail("the child hangs")
    finally:
        done.set()
        thread.join()


WHILE_PRICES_ARE_LOADED = """
import os, signal, sys, threading
from decimal import Decimal
import farthing

threading.Thread(target=farthing.estimate, args=("gpt-4o", "hi")).start()
while "genai_prices" not in sys.modules:
    pass
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if farthing.estimate("gpt-4o", "hi") > 0 else 1)
print(os.waitpid(child, 0)[1])
"""


def test_a_fork_waits_for_what_another_thread_is_importing() -> None:
    """The child's own import of it would wait for ever, for a thread that stayed with the parent."""
    told = [sys.executable, "-W", "ignore", "-c", WHILE_PRICES_ARE_LOADED]
    done = subprocess.run(told, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout.strip(), done.stderr) == ("0", "")
