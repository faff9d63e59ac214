"""
Goal: completions and embeddings are bounded by every input and every answer they ask for; an embedding gets no field
that its endpoint does not know.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from farthing.kernel.usage import Usage
from farthing.wire.facts import AnswerFacts, RequestFacts
from farthing.wire.openai.completions import OpenAICompletions
from farthing.wire.openai.embeddings import OpenAIEmbeddings
from farthing.wire.openai.shared import other_deployment

from .recorded_bodies import body, recorded, recorded_object

COMPLETIONS, EMBEDDINGS = OpenAICompletions(), OpenAIEmbeddings()


def complete(**fields: Any) -> RequestFacts:
    return COMPLETIONS.read_request(body(**{"model": "gpt-3.5-turbo-instruct", "prompt": "hi", **fields}))


def embed(**fields: Any) -> RequestFacts:
    return EMBEDDINGS.read_request(body(**{"model": "text-embedding-3-small", "input": "hi", **fields}))


# --- completions -------------------------------------------------------------------------------------------------


def test_the_recorded_completion_request() -> None:
    facts = COMPLETIONS.read_request(recorded("openai_completions_request.json"))
    assert facts.text == ["Once upon a time", "In a land far away", " The end."]
    # Two prompts, of each the three that best_of generates.
    assert (facts.output_ceiling, facts.choices, facts.overhead_tokens) == (64, 6, 2)
    assert facts.open_reasons == ()


@pytest.mark.parametrize(
    ("prompt", "text", "overhead", "choices"),
    [
        ("hi", ("hi",), 1, 1),
        (["a", "b", "c"], ("a", "b", "c"), 3, 3),
        ([5, 6, 7], (), 4, 1),
        ([[5, 6, 7], [8]], (), 6, 2),
        (["a", [1, 2]], ("a",), 4, 2),
        (None, (), 1, 1),
    ],
)
def test_prompts_in_every_form(prompt: Any, text: tuple[str, ...], overhead: int, choices: int) -> None:
    facts = complete(prompt=prompt)
    assert (tuple(facts.text), facts.overhead_tokens, facts.choices) == (text, overhead, choices)


@pytest.mark.parametrize("prompt", [[], 5, {"a": 1}, [[1, "a"]], [{"a": 1}], [True], [1.5]])
def test_what_is_no_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(ValueError, match="prompt"):
        complete(prompt=prompt)
    with pytest.raises(ValueError, match="input"):
        embed(input=prompt)


def test_without_max_tokens_the_providers_own_default_holds() -> None:
    facts = complete()
    assert (facts.output_ceiling, facts.implied_ceiling) == (None, 16)
    assert json.loads(COMPLETIONS.rewrite(facts, output_ceiling=16))["max_tokens"] == 16


def test_zero_tokens_only_score_the_prompt() -> None:
    facts = complete(max_tokens=0, echo=True)
    assert (facts.output_ceiling, facts.min_output_tokens) == (0, 0)


@pytest.mark.parametrize("fields", [{"max_tokens": -1}, {"n": 0}, {"best_of": "2"}, {"echo": 1}, {"stream": "yes"}])
def test_a_field_of_the_wrong_kind_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        complete(**fields)


def test_a_completion_is_rewritten_in_its_own_fields() -> None:
    facts = COMPLETIONS.read_request(recorded("openai_completions_request.json"))
    changed = json.loads(COMPLETIONS.rewrite(facts, model="davinci-002", output_ceiling=7, ask_usage=True))
    before = recorded_object("openai_completions_request.json")
    assert changed == {
        **before, "model": "davinci-002", "max_tokens": 7, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_the_recorded_completion() -> None:
    facts = COMPLETIONS.read_request(recorded("openai_completions_request.json"))
    answer = COMPLETIONS.read_answer(facts, 200, recorded("openai_completions_answer.json"))
    assert answer == AnswerFacts(
        usage=Usage(input=9, output=31),
        model="gpt-3.5-turbo-instruct",
        response_id="cmpl-9aB",
        finish="length",
        complete=True,
    )


@pytest.mark.parametrize(
    ("fields", "texts", "delivered"),
    [
        ({}, ["one", "two"], ("one", "two")),
        ({"echo": True, "n": 2}, ["hi one", "hi two"], (" one", " two")),
        ({"echo": True, "prompt": ["a", "b"]}, ["a one", "b two"], (" one", " two")),
        ({"echo": True, "prompt": [1, 2]}, ["decoded one"], ("decoded one",)),
    ],
)
def test_an_echoed_prompt_is_not_output(fields: dict[str, Any], texts: list[str], delivered: tuple[str, ...]) -> None:
    facts = complete(**fields)
    choices = [{"index": index, "text": text, "finish_reason": "stop"} for index, text in enumerate(texts)]
    answer = COMPLETIONS.read_answer(facts, 200, body(choices=choices))
    assert (answer.usage, answer.text) == (None, delivered)
    meter = COMPLETIONS.meter(complete(**fields, stream=True), strip_usage=False)
    for choice in choices:
        half = len(choice["text"]) // 2  # type: ignore[arg-type]
        for text in (choice["text"][:half], choice["text"][half:]):  # type: ignore[index]
            meter.feed(b"data: " + body(choices=[{**choice, "text": text, "finish_reason": None}]) + b"\n\n")
    assert meter.facts().text == delivered


def test_a_stream_of_several_prompts_ends_with_the_last() -> None:
    meter = COMPLETIONS.meter(complete(prompt=["a", "b"], n=2, stream=True), strip_usage=False)
    for index in range(4):
        assert not meter.facts().complete
        meter.feed(b"data: " + body(choices=[{"index": index, "text": "x", "finish_reason": "stop"}]) + b"\n\n")
    assert meter.facts().complete


# --- embeddings --------------------------------------------------------------------------------------------------


def test_the_recorded_embeddings_request() -> None:
    facts = EMBEDDINGS.read_request(recorded("openai_embeddings_request.json"))
    assert (facts.text, facts.overhead_tokens) == (["a farthing", "two farthings"], 2)
    assert (facts.output_ceiling, facts.min_output_tokens, facts.choices, facts.stream) == (0, 0, 1, False)


@pytest.mark.parametrize(
    ("value", "text", "overhead"),
    [("hi", ("hi",), 1), (["a", "b"], ("a", "b"), 2), ([5, 6, 7], (), 4), ([[5, 6], [7]], (), 5)],
)
def test_inputs_in_every_form(value: Any, text: tuple[str, ...], overhead: int) -> None:
    facts = embed(input=value)
    assert (tuple(facts.text), facts.overhead_tokens) == (text, overhead)


def test_an_embedding_never_gets_a_field_that_it_had_not() -> None:
    """A clamp that sent max_completion_tokens here broke the call at a predecessor's (B5)."""
    raw = recorded("openai_embeddings_request.json")
    facts = EMBEDDINGS.read_request(raw)
    changed = EMBEDDINGS.rewrite(facts, model="text-embedding-3-large", output_ceiling=9, ask_usage=True)
    assert json.loads(changed) == {**json.loads(raw), "model": "text-embedding-3-large"}
    assert json.loads(EMBEDDINGS.rewrite(facts)) == json.loads(raw)


def test_the_recorded_embeddings() -> None:
    facts = EMBEDDINGS.read_request(recorded("openai_embeddings_request.json"))
    answer = EMBEDDINGS.read_answer(facts, 200, recorded("openai_embeddings_answer.json"))
    assert answer == AnswerFacts(usage=Usage(input=9), model="text-embedding-3-small", complete=True)
    alone = body(data=[], model="m", usage={"prompt_tokens": 9})
    assert EMBEDDINGS.read_answer(facts, 200, alone).usage == Usage(input=9)
    without = EMBEDDINGS.read_answer(facts, 200, body(data=[], model="m"))
    assert (without.usage, without.complete, without.error) == (None, True, False)
    assert EMBEDDINGS.read_answer(facts, 200, body(error={"message": "no"})).error
    assert EMBEDDINGS.read_answer(facts, 429, body(error={"message": "no"})).error


def test_embeddings_that_come_as_a_stream_are_read_at_their_end() -> None:
    meter = EMBEDDINGS.meter(embed(), strip_usage=False)
    raw = recorded("openai_embeddings_answer.json")
    assert meter.feed(raw[:50]) == raw[:50]
    assert (meter.facts(), meter.complete) == (AnswerFacts(), False)
    assert meter.feed(raw[50:]) + meter.finish() == raw[50:]
    assert (meter.facts().usage, meter.complete) == (Usage(input=9), True)


# --- Azure -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("/v1/chat/completions", None),
        (
            "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
            "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21",
        ),
        ("/openai/deployments/mine/embeddings", "/openai/deployments/gpt-4o-mini/embeddings"),
    ],
)
def test_a_deployment_in_the_path_is_what_a_downgrade_changes(path: str, other: str | None) -> None:
    assert other_deployment(path, "gpt-4o-mini") == other
