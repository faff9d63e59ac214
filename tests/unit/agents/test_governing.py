"""Governed functions of every kind: what is held before, what is charged after, and what becomes of results."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from farthing import BudgetExceeded, BudgetExceededError, UnpricedModel, budget, hold, record, report, tokens
from farthing.agents import AgentFunctionError, BudgetManager, ConfidenceReached
from farthing.runtime.default import runtime

pytestmark = pytest.mark.usefixtures("farthing_isolated")

PROMPT = "How many words are in here?"
IN = tokens.count_text(PROMPT)
WORDS = "one two three four five six seven eight nine ten"
OUT = tokens.count_text(WORDS)


@pytest.fixture
def manager() -> BudgetManager:
    manager = BudgetManager(wait_seconds=60)
    manager.register_agent("a", max_tokens=5000)
    return manager


def consumed(manager: BudgetManager, agent: str = "a") -> int:
    report_ = manager.report(detail=True)[agent]
    assert report_["held"] == 0, "nothing stays held"
    return int(report_["consumed"])


# -- the four kinds ----------------------------------------------------------------------------------------------------


FAILING: list[bool] = []


def words() -> list[str]:
    """What each of them says; or, after it may have been billed, the end of a connection."""
    if FAILING:
        raise TimeoutError("after billing")
    return WORDS.split(" ")


def plain(prompt: str) -> Any:
    return " ".join(words())


async def coroutine(prompt: str) -> Any:
    await asyncio.sleep(0)
    return " ".join(words())


def generator(prompt: str) -> Generator[str, None, None]:
    for word in words():
        yield f"{word} "


async def async_generator(prompt: str) -> AsyncGenerator[str, None]:
    for word in words():
        await asyncio.sleep(0)
        yield f"{word} "


def drain(function: Callable[..., Any]) -> str:
    """Call it as its kind is called, and return all that it said."""
    if function.__name__ == "coroutine":
        return str(asyncio.run(function(PROMPT)))
    if function.__name__ == "async_generator":

        async def run() -> str:
            return "".join([word async for word in function(PROMPT)])

        return asyncio.run(run())
    said = function(PROMPT)
    return said if isinstance(said, str) else "".join(said)


@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator])
def test_what_goes_in_and_comes_out_is_counted(manager: BudgetManager, function: Callable[..., Any]) -> None:
    assert drain(manager.govern("a")(function)).strip() == WORDS
    assert consumed(manager) in (IN + OUT, IN + OUT + 1), "a generator's pieces end with one more space"
    (entry,) = manager.ledger.history("a")
    assert entry.note == function.__name__


@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator])
def test_a_governed_function_is_of_the_same_kind(manager: BudgetManager, function: Callable[..., Any]) -> None:
    import inspect

    governed = manager.govern("a")(function)
    for is_kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert is_kind(governed) == is_kind(function)
    assert (governed.__name__, governed.__wrapped__) == (function.__name__, function)  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator])
def test_a_function_that_raises_is_charged_for_what_was_held(
    manager: BudgetManager, function: Callable[..., Any]
) -> None:
    FAILING.append(True)
    try:
        with pytest.raises(TimeoutError):
            drain(manager.govern("a")(function))
    finally:
        FAILING.clear()
    assert consumed(manager) == IN + 1024
    assert manager.ledger.history("a")[0].note.endswith("TimeoutError")


def test_a_plain_function_that_returns_work_still_to_be_done(manager: BudgetManager) -> None:
    def hidden(function: Callable[..., Any]) -> Callable[..., Any]:
        """As a decorator hides what kind of function it wraps."""

        def plainly(*args: Any) -> Any:
            return function(*args)

        return manager.govern("a")(plainly)

    assert asyncio.run(hidden(coroutine)(PROMPT)) == WORDS
    assert consumed(manager) == IN + OUT
    said = hidden(generator)(PROMPT)
    assert "".join(said).strip() == WORDS
    assert consumed(manager) > 2 * (IN + OUT) - 1

    async def run() -> list[str]:
        return [word async for word in hidden(async_generator)(PROMPT)]

    assert len(asyncio.run(run())) == 10
    assert consumed(manager) > 3 * (IN + OUT) - 1


def test_a_generator_that_is_left_is_charged_for_what_it_said(manager: BudgetManager) -> None:
    steps = manager.govern("a")(generator)(PROMPT)
    assert [next(steps), next(steps)] == ["one ", "two "]
    steps.close()
    assert consumed(manager) == IN + tokens.count_text("one two ")
    steps = manager.govern("a")(generator)(PROMPT)
    next(steps)
    del steps
    gc.collect()
    assert consumed(manager) == 2 * IN + tokens.count_text("one two ") + tokens.count_text("one ")


def test_generators_are_sent_to_and_thrown_into(manager: BudgetManager) -> None:
    @manager.govern("a")
    def echo(prompt: str) -> Generator[str, str, str]:
        heard = yield "ready"
        try:
            yield heard
        except KeyError:
            yield "caught"
        return "returned"

    steps = echo(PROMPT)
    assert next(steps) == "ready"
    assert steps.send("hello") == "hello"
    assert steps.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == "returned"
    assert consumed(manager) == IN + tokens.count_text("readyhellocaught") + tokens.count_text("returned")


def test_a_cancelled_task_is_charged_and_nothing_stays_held(manager: BudgetManager) -> None:
    @manager.govern("a")
    async def slow(prompt: str) -> str:
        await asyncio.sleep(3600)
        return ""

    async def run() -> None:
        task = asyncio.create_task(slow(PROMPT))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert consumed(manager) == IN + 1024


def test_methods_count_what_they_are_given_and_not_their_object(manager: BudgetManager) -> None:
    @dataclass
    class Agent:
        memory: str = "much that no model reads " * 50

        @manager.govern("a")
        def ask(self, prompt: str) -> str:
            return WORDS

    assert Agent().ask(PROMPT) == WORDS
    assert consumed(manager) == IN + OUT


# -- what is counted ---------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    text: str
    usage: Any = None


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"answer": WORDS, "confidence": 0.9}, IN + OUT),
        ([WORDS, (WORDS,)], IN + 2 * OUT),
        (Answer(WORDS), IN + OUT),
        (Answer(WORDS, {"input_tokens": 70, "output_tokens": 7}), 77),
        ({"usage": {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}}, 34),
        (SimpleNamespace(text=WORDS, usage=SimpleNamespace(total_tokens=34)), 34),
        ({"usage": {"total_tokens": 34}}, 34),
        (MagicMock(usage=MagicMock(total_tokens=34)), 34),
        (SimpleNamespace(usage_metadata={"input_tokens": 30, "output_tokens": 4, "total_tokens": 34}), 34),
        (SimpleNamespace(text=WORDS), IN + OUT),
        (SimpleNamespace(text=WORDS, usage=SimpleNamespace(total_tokens="many")), IN + OUT + tokens.count_text("many")),
        ({"answer": WORDS, "usage": "of this word"}, IN + OUT + tokens.count_text("of this word")),
        (None, IN),
        (42, IN),
    ],
)
def test_results_of_every_shape(manager: BudgetManager, result: Any, expected: int) -> None:
    assert manager.govern("a")(lambda prompt: result)(PROMPT) is result
    assert consumed(manager) == expected


def test_messages_are_counted_as_messages(manager: BudgetManager) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
    manager.govern("a")(lambda messages: None)(messages)
    assert consumed(manager) == tokens.count(messages)


def test_text_that_looks_like_a_special_token_is_text(manager: BudgetManager) -> None:
    assert manager.govern("a")(lambda prompt: "<|endoftext|>")("<|endoftext|>") == "<|endoftext|>"
    assert consumed(manager) == 2 * tokens.count_text("<|endoftext|>")


def test_a_stream_whose_last_piece_has_the_usage(manager: BudgetManager) -> None:
    @manager.govern("a")
    def stream(prompt: str) -> Generator[Any, None, None]:
        yield {"delta": "one"}
        yield {"delta": "", "usage": {"input_tokens": 11, "output_tokens": 22}}

    list(stream(PROMPT))
    assert consumed(manager) == 33


@pytest.mark.parametrize(("said", "expected"), [(77, 77), ({"input_tokens": 5, "output_tokens": 6}, 11), (0, 0)])
def test_usage_fn_overrides(manager: BudgetManager, said: Any, expected: int) -> None:
    manager.govern("a", usage_fn=lambda result: said)(plain)(PROMPT)
    assert consumed(manager) == expected


@pytest.mark.parametrize("said", [-1, "many", None, float("nan"), {"input_tokens": -5, "output_tokens": 0}])
def test_a_usage_fn_that_says_nonsense_loses_neither_result_nor_charge(manager: BudgetManager, said: Any) -> None:
    with pytest.raises(AgentFunctionError, match="usage_fn") as caught:
        manager.govern("a", usage_fn=lambda result: said)(plain)(PROMPT)
    assert caught.value.result == WORDS
    assert caught.value.function == "usage_fn"
    assert consumed(manager) == IN + OUT


def test_record_inside_replaces_the_estimate(manager: BudgetManager) -> None:
    @manager.govern("a")
    def call(prompt: str) -> str:
        manager.ledger.record("a", 300, note="exact")
        assert manager.report(detail=True)["a"]["held"] == 0
        manager.ledger.record("a", 12)
        return WORDS

    call(PROMPT)
    assert consumed(manager) == 312
    assert [entry.note for entry in manager.ledger.history("a")] == ["exact", ""]


def test_holds_and_records_by_hand_inside_replace_it_too(manager: BudgetManager) -> None:
    @manager.govern("a")
    def held(prompt: str) -> str:
        with hold(tokens=900) as call:
            assert manager.report(detail=True)["a"]["held"] == 900, "in exchange for the estimate, never both"
            call.settle(tokens=400)
        return WORDS

    @manager.govern("a")
    def recorded(prompt: str) -> str:
        record({"input_tokens": 20, "output_tokens": 30})
        return WORDS

    held(PROMPT)
    assert consumed(manager) == 400
    recorded(PROMPT)
    assert consumed(manager) == 450


def test_a_call_that_was_refused_inside_is_not_charged(manager: BudgetManager) -> None:
    @manager.govern("a")
    def call(prompt: str) -> str:
        with pytest.raises(BudgetExceededError) as caught, hold(tokens=100_000):
            raise AssertionError("never held")
        assert caught.value.available == 5000, "what is held for the estimate is not in its way"
        return "sorry"

    assert call(PROMPT) == "sorry"
    assert consumed(manager) == 0

    @manager.govern("a")
    def raising(prompt: str) -> str:
        with hold(tokens=100_000):
            raise AssertionError("never held")

    with pytest.raises(BudgetExceededError):
        raising(PROMPT)
    assert consumed(manager) == 0


# -- what is held ------------------------------------------------------------------------------------------------------


def test_the_range_that_is_held(manager: BudgetManager) -> None:
    seen: list[int] = []

    @manager.govern("a")
    def call(prompt: str) -> str:
        seen.append(manager.report(detail=True)["a"]["held"])
        return WORDS

    for _ in range(3):
        call(PROMPT)
    assert seen[0] == IN + 1024, "without a past"
    assert seen[1:] == [IN + OUT] * 2, "what its calls usually say"


def test_an_agent_with_five_tokens_may_speak() -> None:
    manager = BudgetManager()
    manager.register_agent("a", max_tokens=5)
    assert manager.govern("a")(lambda prompt: "Yes.")("Well?") == "Yes."
    assert consumed(manager) == tokens.count_text("Well?") + tokens.count_text("Yes.")


def test_enclosing_budgets_count_the_same_work(manager: BudgetManager) -> None:
    with budget(tokens=IN + OUT) as purse:
        manager.govern("a")(plain)(PROMPT)
        assert (purse.spent.tokens, purse.held.tokens) == (IN + OUT, 0)
        with pytest.raises(BudgetExceeded) as caught:
            manager.govern("a")(plain)(PROMPT)
    assert not isinstance(caught.value, BudgetExceededError), "it is not the agent that has too little"
    assert consumed(manager) == IN + OUT


def test_the_innermost_agent_of_a_pool_pays(manager: BudgetManager) -> None:
    manager.register_agent("b", max_tokens=500)

    @manager.govern("a")
    def outer(prompt: str) -> str:
        return manager.govern("b")(plain)(prompt)

    assert outer(PROMPT) == WORDS
    assert (consumed(manager, "b"), consumed(manager)) == (IN + OUT, IN + OUT), "outer counts its own in and out"
    with manager.agent("a"), manager.agent("b"), hold(tokens=7) as call:
        call.settle(tokens=7)
    assert (consumed(manager, "b"), consumed(manager)) == (IN + OUT + 7, IN + OUT)


def test_reports_know_agents_as_a_tag(manager: BudgetManager) -> None:
    manager.govern("a")(plain)(PROMPT)
    (row,) = report(group_by="agent")
    assert (row["tags"], row["tokens"], row["calls"]) == ({"agent": "a"}, IN + OUT, 1)


# -- more than was held ------------------------------------------------------------------------------------------------


def test_a_larger_call_borrows_more_at_its_end() -> None:
    manager = BudgetManager()
    manager.register_agent("a", priority=2, max_tokens=50, min_reserve=0)
    manager.register_agent("b", priority=1, max_tokens=5000, min_reserve=0)
    assert manager.govern("a", usage_fn=lambda result: 3000)(plain)(PROMPT) == WORDS
    assert manager.report() == {
        "a": {"allocated": 3000, "consumed": 3000, "remaining": 0},
        "b": {"allocated": 2050, "consumed": 0, "remaining": 2050},
    }
    assert manager.report(detail=True)["a"]["overrun"] == 0


@pytest.mark.parametrize("on_overrun", ["raise", "return"])
def test_what_nobody_can_cover_is_recorded_and_the_result_is_not_lost(on_overrun: str) -> None:
    manager = BudgetManager()
    manager.register_agent("a", max_tokens=100)
    calls: list[str] = []

    @manager.govern("a", usage_fn=lambda result: 250, on_overrun=on_overrun)
    def call(prompt: str) -> str:
        calls.append(prompt)
        return WORDS

    if on_overrun == "return":
        assert call("hi") == WORDS
    else:
        with pytest.raises(BudgetExceededError) as caught:
            call("hi")
        assert (caught.value.result, caught.value.requested, caught.value.available) == (WORDS, 250, 100)
    detail = manager.report(detail=True)["a"]
    assert (detail["consumed"], detail["remaining"], detail["overrun"], detail["held"]) == (250, 0, 150, 0)
    for _ in range(3):
        with pytest.raises(BudgetExceededError) as caught:
            call("hi")
        assert caught.value.result is None
    assert calls == ["hi"], "the next call is refused before it is made"


def test_a_wrong_on_overrun_is_said_at_once(manager: BudgetManager) -> None:
    with pytest.raises(ValueError, match="on_overrun"):
        manager.govern("a", on_overrun="ignore")
    with pytest.raises(ValueError, match="usage_fn"):
        manager.govern("a", usage_fn="total")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decorates a function"):
        manager.govern("a")("text")  # type: ignore[type-var]


# -- money -------------------------------------------------------------------------------------------------------------


def test_an_agent_that_is_limited_in_money() -> None:
    manager = BudgetManager()
    manager.register_agent("a", max_usd=1)
    manager.govern("a", model="gpt-4o-mini", usage_fn=lambda _: {"input_tokens": 1000, "output_tokens": 1000})(plain)(
        PROMPT
    )
    figures = manager.report()["a"]
    assert str(figures["consumed"]) == "0.00075"
    assert str(figures["remaining"]) == "0.99925"


def test_a_cost_that_nobody_knows_is_not_zero() -> None:
    manager = BudgetManager()
    manager.register_agent("a", max_usd=1)
    with pytest.raises(UnpricedModel, match="govern") as caught:
        manager.govern("a")(plain)(PROMPT)
    assert caught.value.result == WORDS  # type: ignore[attr-defined]


# -- confidence --------------------------------------------------------------------------------------------------------


def test_the_gate_closes_one_task_only() -> None:
    manager = BudgetManager()
    manager.register_agent("a", max_tokens=5000, confidence_threshold=0.8)
    check = manager.govern("a", lambda result: result["c"], task_fn=lambda claim, c: claim)(
        lambda claim, c: {"c": c, "claim": claim}
    )
    check("sky", 0.8)
    with pytest.raises(ConfidenceReached) as caught:
        check("sky", 0.1)
    error = caught.value
    assert (error.agent_name, error.task, error.confidence, error.result) == (
        "a",
        "sky",
        0.8,
        {"c": 0.8, "claim": "sky"},
    )
    assert "'sky'" in str(error)
    assert "requested" not in str(error)
    check("sea", 0.2)
    check("sea", 0.79)
    manager.reset_confidence("a", "sky")
    check("sky", 0.1)
    assert manager.contracts["a"].last_confidence is None, "named tasks are not the agent's last word"
    check("sea", 0.9)
    check("sky", 0.9)
    manager.reset_confidence("a")
    check("sea", 0.1)
    check("sky", 0.1)


def test_the_scope_of_an_agent_has_the_gate_too() -> None:
    manager = BudgetManager()
    manager.register_agent("a", max_tokens=5000, confidence_threshold=0.8)
    manager.govern("a", lambda result: 1.0)(plain)(PROMPT)
    with pytest.raises(ConfidenceReached), manager.agent("a"):
        raise AssertionError("never entered")
    manager.reset_confidence("a")
    with manager.agent("a"):
        pass


@pytest.mark.parametrize("said", ["high", 1.5, -0.1, float("nan"), [0.5], True])
def test_a_confidence_fn_that_says_nonsense_is_named(said: Any) -> None:
    manager = BudgetManager()
    manager.register_agent("a", max_tokens=5000, confidence_threshold=0.8)
    with pytest.raises(AgentFunctionError, match="confidence_fn") as caught:
        manager.govern("a", lambda result: said)(plain)(PROMPT)
    assert caught.value.result == WORDS
    assert consumed(manager) == IN + OUT
    manager.govern("a")(plain)(PROMPT)


def test_a_confidence_fn_that_raises_loses_neither_result_nor_charge() -> None:
    manager = BudgetManager()
    manager.register_agent("a", max_tokens=5000, confidence_threshold=0.8)
    with pytest.raises(AgentFunctionError, match="KeyError") as caught:
        manager.govern("a", lambda result: {}["confidence"])(plain)(PROMPT)
    assert (caught.value.result, type(caught.value.__cause__)) == (WORDS, KeyError)
    assert consumed(manager) == IN + OUT


def test_a_task_fn_that_raises_is_named_before_anything_is_called(manager: BudgetManager) -> None:
    def call(prompt: str) -> str:
        raise AssertionError("never called")

    with pytest.raises(AgentFunctionError, match="task_fn"):
        manager.govern("a", task_fn=lambda prompt: 1 // 0)(call)(PROMPT)
    assert consumed(manager) == 0


def test_nothing_is_left_in_memory_of_a_manager_that_is_gone() -> None:
    ledger = runtime().memory
    manager = BudgetManager()
    manager.register_agent("a")
    manager.register_agent("b", priority=2, max_tokens=5)
    manager.delegate("a", "sub", max_tokens=100)
    with manager.agent("b"), hold(tokens=50) as held:
        held.settle(tokens=40)
    pool = manager.crew.pool
    assert any(pool in key for key in ledger.store.balances().result())
    assert any(pool in name for name in ledger.catalogue.budgets)
    del manager
    gc.collect()
    runtime().housekeeper.catch_up()
    assert not any(pool in name for name in ledger.catalogue.budgets)
    runtime().put_units_away(1_000)
    assert not any(pool in key for key in ledger.store.balances().result())
    assert ledger.store.holds().result() == ()
