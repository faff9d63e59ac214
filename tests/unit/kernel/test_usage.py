"""Usage counts every token once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.usage import KINDS, Usage

COUNTS = st.integers(0, 2**53)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    kinds = {kind: draw(COUNTS) for kind in KINDS}
    kinds["reasoning"] = draw(st.integers(0, kinds["output"]))
    return Usage(**kinds)


@given(usages())
def test_the_total_is_every_disjoint_kind_once(usage: Usage) -> None:
    assert usage.total_tokens == sum(getattr(usage, kind) for kind in KINDS if kind != "reasoning")
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.cached_tokens <= usage.input_tokens
    assert usage.cache_write_tokens + usage.cached_tokens <= usage.input_tokens


@given(usages(), usages())
def test_adding_adds_each_kind(one: Usage, other: Usage) -> None:
    both = one + other
    assert both.total_tokens == one.total_tokens + other.total_tokens
    assert both.reasoning == one.reasoning + other.reasoning
    assert one + Usage() == one


@given(usages())
def test_to_dict_survives_json(usage: Usage) -> None:
    assert Usage.from_dict(json.loads(json.dumps(usage.to_dict()))) == usage


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [-1, 1.0, 1.5, True, "1", None, float("nan")])
def test_each_kind_refuses_what_is_not_a_count(kind: str, wrong: object) -> None:
    with pytest.raises(ValueError, match=rf"usage\.{kind} must"):
        Usage(**{"output": 5, kind: wrong})  # type: ignore[arg-type]


def test_reasoning_is_part_of_output() -> None:
    assert Usage(output=5, reasoning=5).total_tokens == 5
    with pytest.raises(ValueError, match="reasoning"):
        Usage(output=4, reasoning=5)
