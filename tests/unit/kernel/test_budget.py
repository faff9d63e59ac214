"""A budget is right when it is made, or it is a ValueError that names the field; and it survives being kept."""

from __future__ import annotations

import json
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.budget import HARD_MODES, MODES, OPEN_BOUND, UNCAPPED, Budget, make_budget, unit_of_work
from farthing.kernel.money import COUNTER_MAX
from farthing.kernel.window import CALENDAR

COUNTS = st.none() | st.integers(0, COUNTER_MAX)
TEXT = st.text(min_size=1, max_size=6).filter(str.strip)
PER = st.sampled_from(["lifetime", "request", "day Europe/Berlin", "rolling 60s", "rolling 7d", *CALENDAR])


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    per = draw(PER)
    mode = draw(st.sampled_from(MODES if per != "request" else [mode for mode in MODES if mode != "raise"]))
    windowless = per == "lifetime"
    return make_budget(
        draw(TEXT),
        tokens=draw(st.integers(0, COUNTER_MAX)),
        usd=draw(st.none() | st.decimals(0, 9_000_000, places=9)),
        requests=draw(COUNTS),
        concurrency=draw(COUNTS) if windowless and mode != "raise" else None,
        per=per,
        on_exceed=mode,
        downgrade={"b": "a", "c": "b", "a": "z"} if mode == "downgrade" else None,
        scope=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        each=draw(st.lists(TEXT, max_size=2)),
        description=draw(st.none() | TEXT),
        min_output_tokens=draw(st.integers(1, 100)),
        default_output_tokens=draw(st.none() | st.integers(1, 100)),
        uncapped=draw(st.sampled_from(UNCAPPED)),
        open_bound=draw(st.sampled_from(OPEN_BOUND)),
        standing=draw(st.booleans()),
    )


@given(budgets(), st.booleans())
def test_a_budget_survives_being_kept_as_json_whatever_order_its_keys_come_back_in(budget: Budget, sort: bool) -> None:
    kept = json.dumps(budget.to_dict(), sort_keys=sort)
    again = Budget.from_dict(json.loads(kept))
    assert again == budget
    assert again.to_dict() == budget.to_dict()
    assert hash(again) == hash(budget)


def test_the_order_of_a_map_is_no_difference_of_terms() -> None:
    one = make_budget("b", tokens=1, on_exceed="downgrade", downgrade={"x": "y", "a": "b"}, scope={"u": "1", "t": "2"})
    two = make_budget("b", tokens=1, on_exceed="downgrade", downgrade={"a": "b", "x": "y"}, scope={"t": "2", "u": "1"})
    assert one == two


def test_budgets_kept_before_a_setting_existed_get_its_default() -> None:
    kept = make_budget("b", tokens=5).to_dict()
    del kept["uncapped"]
    assert Budget.from_dict(kept).uncapped == "inject"


WRONG: list[tuple[str, dict[str, Any]]] = [
    *[(unit, {unit: wrong}) for unit in ("tokens", "requests", "concurrency") for wrong in (-1, 1.0, True, "5", [5])],
    *[(unit, {unit: wrong}) for unit in ("tokens", "requests", "concurrency") for wrong in (float("nan"), 2**53 + 1)],
    *[(unit, {unit: wrong}) for unit in ("tokens", "requests", "concurrency") for wrong in (10**5000, -(10**5000))],
    *[("usd", {"usd": wrong}) for wrong in (-1, float("nan"), float("inf"), "5", True, [5], Decimal("1e-10"), 1e9)],
    *[("name", {"name": wrong}) for wrong in ("", " ", 5, b"b", "x" * 201, "a\udcff")],
    *[("per", {"per": wrong}) for wrong in ("dayly", "", 5, "day Mars/Olympus", "rolling", "rolling 0s")],
    *[("on_exceed", {"on_exceed": wrong}) for wrong in ("blok", "Block", "", None, 5, ["block"], "brake")],
    *[("uncapped", {"uncapped": wrong}) for wrong in ("injekt", None, 1)],
    *[("open_bound", {"open_bound": wrong}) for wrong in ("windows", None, 1)],
    *[("scope", {"scope": wrong}) for wrong in ("", [], 0, False, "team=a", {"": "x"}, {"a": None}, {"a": "x" * 300})],
    *[("each", {"each": wrong}) for wrong in ("user", {"user"}, None, ["user", ""], [None], 5, ["a\udcff"])],
    *[("description", {"description": wrong}) for wrong in (5, b"x", ["x"])],
    *[("min_output_tokens", {"min_output_tokens": wrong}) for wrong in (0, -1, 1.5, True, "16", None)],
    *[("default_output_tokens", {"default_output_tokens": wrong}) for wrong in (0, -1, 1.5, False, "16")],
    *[("standing", {"standing": wrong}) for wrong in (1, "yes", None)],
    *[
        ("downgrade", {"on_exceed": "downgrade", "downgrade": wrong})
        for wrong in (None, {}, [], "gpt", {"a": "a"}, {"a": "b", "b": "a"}, {"a": 5}, {"": "b"}, {"a": ""})
    ],
    ("downgrade", {"on_exceed": "block", "downgrade": {"a": "b"}}),
    ("on_exceed='clamp'", {"on_exceed": "clamp", "requests": 5, "tokens": None}),
    ("on_exceed='raise'", {"on_exceed": "raise", "per": "request"}),
    ("concurrency", {"concurrency": 2, "per": "request"}),
    ("concurrency", {"concurrency": 2, "per": "day"}),
    ("concurrency", {"concurrency": 2, "on_exceed": "raise"}),
    ("concurrency", {"concurrency": 2, "per": "rolling 60s"}),
    ("limit", {"tokens": None}),
    ("scope", {"name": None, "scope": {"team": "a"}}),
    ("each", {"name": None, "each": ["user"]}),
    ("per='day'", {"name": None, "per": "day"}),
]


@pytest.mark.parametrize(("field", "given"), WRONG, ids=lambda value: str(value)[:40] if isinstance(value, str) else "")
def test_what_is_wrong_is_named(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=field):
        make_budget(**{"name": "b", "tokens": 5, **given})


def test_a_typo_in_a_keyword_is_an_error() -> None:
    with pytest.raises(TypeError, match="usdd"):
        make_budget("b", usdd=5)  # type: ignore[call-arg]


def test_zero_is_a_legal_limit_and_not_the_same_as_none() -> None:
    budget = make_budget("b", tokens=0, usd=0)
    assert [budget.limit(unit) for unit in ("tokens", "usd", "requests", "concurrency")] == [0, 0, None, None]
    with pytest.raises(ValueError, match="minutes"):
        budget.limit("minutes")


def test_any_mapping_and_any_sequence_that_people_use_will_do() -> None:
    budget = make_budget("b", tokens=5, scope=MappingProxyType({"run": 7}), each=("user",))
    assert budget.scope == (("run", "7"),)
    assert budget.each == ("user",)


@pytest.mark.parametrize("mode", MODES)
def test_hard_modes_are_those_that_refuse_before_sending(mode: str) -> None:
    budget = make_budget("b", tokens=5, on_exceed=mode, downgrade={"a": "b"} if mode == "downgrade" else None)
    assert budget.hard == (mode in HARD_MODES) == (mode not in ("warn", "raise"))


def test_a_unit_of_work_is_its_own_account_and_keeps_the_label() -> None:
    anonymous = make_budget(tokens=5)
    assert anonymous.anonymous
    unit = unit_of_work(anonymous, unit_id="u-1", label="answer()")
    assert (unit.name, unit.title, unit.tokens) == ("u-1", "answer()", 5)
    assert make_budget("shared", tokens=5).title == "shared"


def test_terms_are_written_as_people_write_them() -> None:
    assert make_budget("b", usd=5, tokens=1_000, per="day").terms_text() == "$5.00 and 1,000 tokens per day"
    assert make_budget("b", requests=10, concurrency=2).terms_text() == "10 requests and 2 at once"
    assert make_budget("b", usd=Decimal("0.5"), per="rolling 60s").terms_text() == "$0.50 per rolling 60s"
