"""What a reply comes to: exactly as many tokens as it says, cut where the request says, billed as generated."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.usage import Usage
from farthing.testing import Reply, ToolCall
from farthing.testing.counting import filler, pieces_of
from farthing.testing.generation import Generation, generate
from tests.unit.testing.words import count_words


def made(reply: Reply, *, ceiling: int = 1000, choices: int = 1, generated: int | None = None) -> Generation:
    return generate(
        reply,
        model="m",
        input_tokens=7,
        ceiling=ceiling,
        count=count_words,
        choices=choices,
        generated_choices=generated,
    )


@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
@pytest.mark.parametrize("tokens", [0, 1, 10, 17, 18, 500])
def test_filler_has_exactly_its_tokens(encoding: str, tokens: int) -> None:
    text = "".join(piece.text for piece in filler(tokens))
    quicktok: Any = pytest.importorskip("quicktok")
    assert quicktok.get_encoding(encoding).count(text) == tokens


@given(st.text())
def test_pieces_make_up_the_text_and_its_count(text: str) -> None:
    pieces = pieces_of(text, "m", count_words)
    assert "".join(piece.text for piece in pieces) == text
    assert sum(piece.tokens for piece in pieces) == count_words(text, "m")


replies = st.builds(
    Reply,
    text=st.none() | st.text(alphabet="ab ", max_size=40),
    tool_calls=st.lists(
        st.builds(ToolCall, name=st.just("look up"), arguments=st.just({"a b c": "d e f"})), max_size=2
    ),
    output_tokens=st.none() | st.integers(50, 300),
    reasoning_tokens=st.integers(0, 50),
    tokens_per_chunk=st.integers(1, 5),
)


@given(replies, st.integers(0, 320), st.integers(1, 3), st.integers(0, 2))
def test_what_is_shown_and_hidden_is_what_is_billed(reply: Reply, ceiling: int, choices: int, unseen: int) -> None:
    generation = made(reply, ceiling=ceiling, choices=choices, generated=choices + unseen)
    shown = sum(piece.tokens for part in generation.parts for piece in generation.chunks(part))
    assert generation.billed.output == generation.hidden_tokens + choices * shown
    assert generation.billed.output <= ceiling * (choices + unseen)
    assert generation.truncated == (
        generation.billed.output < made(reply, ceiling=10**6).billed.output * (choices + unseen)
    )
    texts = ["".join(piece.text for piece in generation.chunks(part)) for part in generation.parts]
    assert texts == [part.text for part in generation.parts]


def test_output_tokens_contain_reasoning() -> None:
    generation = made(Reply(output_tokens=30, reasoning_tokens=20))
    assert generation.billed == Usage(input=7, output=30, reasoning=20)
    assert len(generation.text.split()) == 10


def test_reasoning_counts_towards_the_ceiling_and_comes_first() -> None:
    generation = made(Reply(output_tokens=30, reasoning_tokens=20), ceiling=15)
    assert (generation.billed.output, generation.billed.reasoning, generation.text) == (15, 15, "")
    assert generation.ending == "length"


def test_a_huge_length_fills_what_is_allowed_and_no_more() -> None:
    generation = made(Reply(output_tokens=10**12), ceiling=40)
    assert generation.billed.output == 40
    assert len(generation.text.split()) == 40


def test_cached_input_is_part_of_the_input() -> None:
    usage = made(Reply(input_tokens=100, cached_tokens=60, cache_write_tokens=30)).billed
    assert (usage.input, usage.cached, usage.cache_write, usage.input_tokens) == (10, 60, 30, 100)


@pytest.mark.parametrize(("usage", "reported"), [("absent", None), ("zero", Usage()), (Usage(input=1), Usage(input=1))])
def test_what_is_reported_leaves_the_bill_alone(usage: Any, reported: Usage | None) -> None:
    generation = made(Reply(usage=usage))
    assert generation.reported == reported
    assert generation.billed == Usage(input=7, output=10)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("output_tokens", -1),
        ("output_tokens", 1.5),
        ("reasoning_tokens", None),
        ("tokens_per_chunk", 0),
        ("split_bytes", 0),
        ("latency_seconds", -1),
        ("latency_seconds", float("nan")),
        ("status", 100),
        ("fault", "explode"),
        ("usage", "some"),
    ],
)
def test_bad_replies_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Reply(**{field: value})  # type: ignore[arg-type]


def test_parts_that_exceed_their_whole_are_refused() -> None:
    with pytest.raises(ValueError, match="reasoning_tokens"):
        Reply(output_tokens=5, reasoning_tokens=6)
    with pytest.raises(ValueError, match="cached_tokens"):
        Reply(input_tokens=5, cached_tokens=6)
    with pytest.raises(ValueError, match="text and chunks"):
        Reply("a", chunks=["a"])
