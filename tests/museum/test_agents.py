"""
Faults of the Token Budget Contracts package, as they were measured (predecessors 1.3, T1 to T15). Ours has none.

The fake call is 8 tokens of prompt and 93 of answer: 101 in all.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from farthing import tokens
from farthing.agents import (
    AgentFunctionError,
    BudgetExceededError,
    BudgetManager,
    ConfidenceReached,
    Ledger,
    Reallocator,
    estimate_tokens,
)

pytestmark = pytest.mark.usefixtures("farthing_isolated")

PROMPT = "one two three four five six seven eight"
ANSWER = "word " * 92 + "end"
SIZE = 101


class Provider:
    """Counts what it is asked, and bills it."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()

    def __call__(self, prompt: str) -> str:
        with self._lock:
            self.calls += 1
        return ANSWER

    async def asking(self, prompt: str) -> str:
        await asyncio.sleep(0.001)
        return self(prompt)

    @property
    def billed(self) -> int:
        return self.calls * SIZE


@pytest.fixture
def provider() -> Provider:
    assert tokens.count_text(PROMPT) + tokens.count_text(ANSWER) == SIZE
    return Provider()


def crew(**agents: int) -> BudgetManager:
    manager = BudgetManager()
    for name, limit in agents.items():
        manager.register_agent(name, max_tokens=limit, min_reserve=0)
    return manager


def refused(call: Callable[[], object]) -> BudgetExceededError | None:
    try:
        call()
    except BudgetExceededError as error:
        return error
    return None


def test_t1_a_call_larger_than_the_cap_is_recorded_and_its_result_kept(provider: Provider) -> None:
    """T1: cap 100, one call worth 101: the provider was called, an error raised, 0 recorded, the result lost."""
    manager = crew(a=100)
    error = refused(lambda: manager.govern("a")(provider)(PROMPT))
    assert error is not None
    assert error.result == ANSWER
    assert (manager.ledger.consumed("a"), provider.billed) == (SIZE, SIZE)


def test_t2_a_runaway_that_swallows_errors_is_stopped(provider: Provider) -> None:
    """T2: the same 1,001 times with the error caught: 1,001 calls, 101,101 tokens, the ledger said 0."""
    manager = crew(a=100)
    call = manager.govern("a")(provider)
    assert all(refused(lambda: call(PROMPT)) for _ in range(1_001))
    assert provider.calls == 1
    assert manager.ledger.consumed("a") == provider.billed


def test_t3_fifty_threads_do_not_pass_the_cap(provider: Provider) -> None:
    """T3: 50 threads, cap 1,000: 50 calls, 5,050 tokens, the ledger said 909, 41 raised after paying."""
    manager = crew(a=1_000)
    call = manager.govern("a")(provider)
    barrier = threading.Barrier(50)
    errors: list[BudgetExceededError | None] = []

    def run() -> None:
        barrier.wait()
        errors.append(refused(lambda: call(PROMPT)))

    threads = [threading.Thread(target=run) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert manager.ledger.consumed("a") == provider.billed
    assert 1_000 - SIZE < provider.billed < 1_000 + SIZE, "by no more than the one call's excess over its hold"
    paid = [error for error in errors if error is not None and error.result is not None]
    assert len(paid) <= 1, "nobody else was refused after paying"


def test_t3_measured_calls_never_pass_it(provider: Provider) -> None:
    """T3, where the calls say beforehand what they may cost: not one token more than the cap."""
    from farthing import hold

    manager = crew(a=1_000)

    def run() -> None:
        with manager.agent("a"), hold(tokens=SIZE) as held:
            provider(PROMPT)
            held.settle(tokens=SIZE)

    def attempt() -> None:
        barrier.wait()
        refused(run)

    barrier = threading.Barrier(50)
    threads = [threading.Thread(target=attempt) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.calls == 9
    assert manager.ledger.consumed("a") == provider.billed == 909


def test_t4_async_functions_are_metered_by_what_they_answer(provider: Provider) -> None:
    """T4: 50 tasks on a cap of 1,000: 5,050 tokens, the ledger said 50 (the arguments), nobody was told."""
    manager = crew(a=1_000)
    call = manager.govern("a")(provider.asking)

    async def run() -> list[Any]:
        return await asyncio.gather(*(call(PROMPT) for _ in range(50)), return_exceptions=True)

    answers = asyncio.run(run())
    assert manager.ledger.consumed("a") == provider.billed
    assert 1_000 - SIZE < provider.billed < 1_000 + SIZE
    told = sum(isinstance(answer, BudgetExceededError) for answer in answers)
    assert told >= 50 - provider.calls


def test_t5_what_generators_yield_is_counted() -> None:
    """T5: a generator function consumed 1 token whatever it yielded."""
    manager = crew(a=1_000)

    @manager.govern("a")
    def stream(prompt: str) -> Generator[str, None, None]:
        yield from (f"{word} " for word in ANSWER.split(" "))

    said = "".join(stream(PROMPT))
    assert manager.ledger.consumed("a") == tokens.count_text(PROMPT) + tokens.count_text(said)


def test_t6_a_function_that_raises_after_billing_is_charged() -> None:
    """T6: the wrapped function raised (a timeout after billing): 0 was charged."""
    manager = crew(a=5_000)

    def fail(prompt: str) -> str:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        manager.govern("a")(fail)(PROMPT)
    assert manager.ledger.consumed("a") >= tokens.count_text(PROMPT)


def test_t7_messages_and_dicts_are_counted() -> None:
    """T7: arguments as a list of messages and a dict as the result, as in its own README: 0 consumed."""
    manager = crew(a=5_000)
    messages = [{"role": "user", "content": PROMPT}]
    manager.govern("a")(lambda messages: {"answer": ANSWER, "confidence": 0.5})(messages)
    assert manager.ledger.consumed("a") >= SIZE


def test_t8_the_gate_closes_one_task_says_so_and_opens_again(provider: Provider) -> None:
    """T8: one answer at the threshold blocked every later call for ever: "requested 0 tokens but only 997 …"."""
    manager = BudgetManager()
    manager.register_agent("a", max_tokens=5_000, confidence_threshold=0.8)
    check = manager.govern("a", lambda result: 0.8, task_fn=lambda prompt: prompt)(provider)
    check("is the sky blue?")
    with pytest.raises(ConfidenceReached) as caught:
        check("is the sky blue?")
    assert "confidence 0.8" in str(caught.value)
    assert caught.value.result == ANSWER
    check("is the sea blue?")
    manager.reset_confidence("a", "is the sky blue?")
    check("is the sky blue?")
    assert provider.calls == 3


def test_t9_a_confidence_fn_that_raises_does_not_lose_the_result(provider: Provider) -> None:
    """T9: confidence_fn raised: the tokens were charged, the result lost."""
    manager = crew(a=5_000)
    with pytest.raises(AgentFunctionError, match="confidence_fn") as caught:
        manager.govern("a", lambda result: result["confidence"])(provider)(PROMPT)
    assert caught.value.result == ANSWER
    assert manager.ledger.consumed("a") == SIZE


def test_t10_a_borrow_that_cannot_cover_changes_nothing() -> None:
    """T10: r(10) needs 101, its donor has 50: an error, and the donor drained to 0 with nothing rolled back."""
    manager = crew(r=10, donor=50)
    before = manager.report(detail=True)
    error = refused(lambda: manager.govern("r")(lambda prompt: "")("word " * 100))
    assert error is not None
    assert error.available == 60
    assert manager.report(detail=True) == before


def test_t11_exact_accounting_is_enforced(provider: Provider) -> None:
    """T11: record 500 on a cap of 100, then -700: both accepted; 300 of 100 remained."""
    manager = crew(a=100)
    manager.ledger.record("a", 500)
    with pytest.raises(ValueError, match="tokens"):
        manager.ledger.record("a", -700)
    assert manager.report()["a"] == {"allocated": 100, "consumed": 500, "remaining": 0}
    assert refused(lambda: manager.govern("a")(provider)(PROMPT)) is not None
    assert provider.calls == 0


def test_t12_a_reserve_holds_under_a_race() -> None:
    """T12: 8 threads racing to reallocate 300 from one donor (1,000, reserve 100): the reserve was violated."""
    from farthing.agents import BudgetContract

    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        for _ in range(5):
            ledger = Ledger()
            contracts = {"donor": BudgetContract("donor", 1, 1_000, 100)}
            ledger.register("donor", 1_000)
            for number in range(8):
                contracts[f"n{number}"] = BudgetContract(f"n{number}", 2, 0)
                ledger.register(f"n{number}", 0)
            moved: list[int] = []

            shared = Reallocator(contracts, ledger)

            def run(number: int, of: Reallocator = shared, moved: list[int] = moved) -> None:
                moved.append(of.reallocate(f"n{number}", 300))

            threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            allocated = {name: of["allocated"] for name, of in ledger.snapshot().items()}
            assert sum(allocated.values()) == 1_000
            assert allocated["donor"] == 100, "the others may take from each other what it gave, and no more from it"
            assert len(moved) == 8
    finally:
        sys.setswitchinterval(interval)


def test_t13_special_tokens_are_text(provider: Provider) -> None:
    """T13: the text ``<|endoftext|>`` in any argument: ValueError, after the call had run."""
    manager = crew(a=5_000)
    assert manager.govern("a")(provider)("<|endoftext|>") == ANSWER
    assert manager.ledger.consumed("a") > SIZE - 8


def test_t14_text_of_any_kind_is_never_undercounted() -> None:
    """T14: its fallback counted 9 tokens of Chinese as 1, and 4,000 unbroken characters as 1."""
    assert estimate_tokens(("你好，世界，今天天气很好",), {}, None) >= 6
    assert estimate_tokens(("x" * 4_000,), {}, None) >= 400


CREW = """
import sys
from farthing import BudgetManager
manager = BudgetManager(sys.argv[1], "crew")
manager.register_agent("a", max_tokens=1_000)
print(manager.remaining("a"), flush=True)
call = manager.govern("a")(lambda prompt: sys.argv[2])
call("hi")
print(manager.remaining("a"), flush=True)
sys.stdin.readline()
"""


def test_t15_a_budget_survives_its_process(tmp_path: Path) -> None:
    """T15: no file anywhere; kill -9 or a restart was a full budget again."""
    argv = [sys.executable, "-c", CREW, f"sqlite:///{tmp_path / 'ledger.db'}", ANSWER]
    left = []
    for _ in range(2):
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            left += [int(process.stdout.readline()), int(process.stdout.readline())]
            process.send_signal(signal.SIGKILL)
    assert left[0] == 1_000
    assert left[0] > left[1] == left[2] > left[3]
