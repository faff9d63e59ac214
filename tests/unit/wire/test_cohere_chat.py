"""
Goal: Cohere's chat is read, bounded and metered; what is billed is what its billed units say.
Method: bodies written after the types of the SDK cohere 7.3 (its own parser reads what the fake provider sends, in
tests/compat/httpx); there is no recording of the real service here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from farthing.kernel.usage import Usage
from farthing.wire.cohere.chat import CohereChat
from tests.unit.wire.recorded_bodies import COHERE, body

DIALECT = CohereChat()
USAGE = {
    "billed_units": {"input_tokens": 5.0, "output_tokens": 20.0},
    "tokens": {"input_tokens": 71.0, "output_tokens": 20.0},
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message-start", "id": "c-1", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "a \"message-end\" "}}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "coin"}}}},
    {"type": "tool-call-delta", "index": 1, "delta": {"message": {"tool_calls": {"function": {"arguments": "{}"}}}}},
    {"type": "content-end", "index": 0},
    {"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS", "usage": USAGE}},
]  # fmt: skip


def stream(events: list[dict[str, Any]]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def test_a_request_counts_all_it_says() -> None:
    facts = DIALECT.read_request(
        body(
            model="command-a-03-2025",
            messages=[
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {}}]},
                {"role": "assistant", "tool_plan": "look", "tool_calls": [{"function": {"name": "f"}}]},
            ],
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            documents=[{"data": {"text": "a coin is round"}}],
            max_tokens=7,
        )
    )
    said = " ".join(facts.text)
    assert all(word in said for word in ("be brief", "hi", "look", '"f"', "parameters", "a coin is round"))
    assert (facts.output_ceiling, facts.choices, tuple(facts.open_reasons)) == (7, 1, ("image input",))


def test_a_tool_that_is_no_function_has_no_bound() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"type": "web_search"}]
    messages = [{"role": "user", "content": "hi"}]
    facts = DIALECT.read_request(body(model="command-a-03-2025", messages=messages, tools=tools))
    assert tuple(facts.open_reasons) == ("hosted tool web_search",)


def test_a_ceiling_and_a_model_of_ours() -> None:
    facts = DIALECT.read_request(COHERE)
    sent = json.loads(DIALECT.rewrite(facts, model="command-r7b-12-2024", output_ceiling=9, ask_usage=True))
    assert sent == {**json.loads(COHERE), "model": "command-r7b-12-2024", "max_tokens": 9}
    assert facts.wants_usage


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        (USAGE, Usage(input=5, output=20)),
        ({"tokens": USAGE["tokens"]}, Usage(input=71, output=20)),
        ({"billed_units": {"search_units": 1}}, None),
        ({"billed_units": {"input_tokens": -1, "output_tokens": True}}, None),
        (None, None),
    ],
)
def test_a_plain_answer(usage: Any, wanted: Usage | None) -> None:
    answer = {"id": "c-1", "finish_reason": "COMPLETE", "message": {"content": [{"type": "text", "text": "coin"}]}}
    facts = DIALECT.read_answer(DIALECT.read_request(COHERE), 200, json.dumps({**answer, "usage": usage}).encode())
    assert (facts.usage, facts.complete, facts.error) == (wanted, True, False)
    assert facts.text == (() if wanted else ("coin",))


def test_a_stream_is_relayed_as_it_is_and_metered_at_its_last_event() -> None:
    meter = DIALECT.meter(DIALECT.read_request(COHERE), strip_usage=False)
    raw = stream(EVENTS)
    relayed = b"".join(meter.feed(raw[at : at + 7]) for at in range(0, len(raw), 7)) + meter.finish()
    facts = meter.facts()
    assert relayed == raw
    assert meter.complete
    assert (facts.usage, facts.finish, facts.response_id) == (Usage(input=5, output=20), "length", "c-1")


def test_a_cut_stream_tells_what_was_delivered() -> None:
    meter = DIALECT.meter(DIALECT.read_request(COHERE), strip_usage=False)
    meter.feed(stream(EVENTS[:-1]))
    facts = meter.facts()
    assert not meter.complete
    assert (facts.usage, facts.error) == (None, False)
    assert facts.text == ('a "message-end" coin', "{}")


def test_an_error_in_place_of_an_answer_costs_nothing() -> None:
    meter = DIALECT.meter(DIALECT.read_request(COHERE), strip_usage=False)
    meter.feed(stream([EVENTS[0], {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "busy"}}]))
    assert meter.facts().error


@pytest.mark.parametrize("bad", [b"[]", b"{", body(model="m"), body(messages=[]), body(model="m", messages=[1])])
def test_a_body_of_another_kind_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        DIALECT.read_request(bad)
