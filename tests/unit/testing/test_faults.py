"""
Every fault, plain and streamed: what the client meets, and what the provider bills all the same.
"""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Callable
from typing import Any

import openai as sdk
import pytest
from anthropic import Anthropic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import OpenAI

from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HASTY
from tests.unit.testing.words import HI, HI_TOKENS, TEN_WORDS

Call = Callable[[OpenAI], Any]


def plain(client: OpenAI) -> Any:
    return client.chat.completions.create(model="gpt-4o", messages=HI)


def stream(client: OpenAI) -> Any:
    with client.chat.completions.create(model="gpt-4o", messages=HI, stream=True) as chunks:
        return list(chunks)


def post(provider: FakeProvider, body: dict[str, Any], **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    """A call without an SDK: the answer and its body as they came."""
    connection = http.client.HTTPConnection(provider.url.removeprefix("http://"))
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": HI, **body}), headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("call", [plain, stream])
@pytest.mark.parametrize("fault", ["reset", "close_before_answer"])
def test_faults_before_the_answer_bill_nothing(provider: FakeProvider, openai: OpenAI, call: Call, fault: Any) -> None:
    provider.reply = Reply(fault=fault)
    with pytest.raises(sdk.APIConnectionError):
        call(openai)
    provider.wait_idle()
    assert provider.bill == []
    assert provider.posts == 1


@pytest.mark.parametrize("call", [plain, stream])
@pytest.mark.parametrize(
    "reply",
    [
        Reply(fault="reset", bill_anyway=True),
        Reply(fault="close_before_answer", bill_anyway=True),
        Reply(fault="hang", bill_anyway=True),
        Reply(status=504, bill_anyway=True),
    ],
    ids=["reset", "close", "hang", "504"],
)
def test_a_call_may_be_billed_though_the_client_never_heard(
    provider: FakeProvider, openai: OpenAI, call: Call, reply: Reply
) -> None:
    provider.reply = reply
    with pytest.raises(sdk.APIError):
        call(openai.with_options(timeout=HASTY))
    provider.wait_idle()
    (line,) = provider.bill
    assert line.usage.input == HI_TOKENS
    assert line.usage.output == 10


@pytest.mark.parametrize("call", [plain, stream])
def test_a_hang_lasts_until_the_client_leaves(provider: FakeProvider, openai: OpenAI, call: Call) -> None:
    provider.reply = Reply(fault="hang")
    with pytest.raises(sdk.APITimeoutError):
        call(openai.with_options(timeout=HASTY))
    provider.wait_idle()
    assert provider.bill == []


def test_a_plain_answer_closed_half_way_is_billed_in_full(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(fault="close_mid_body")
    with pytest.raises(sdk.APIConnectionError):
        plain(openai)
    assert provider.billed().output == 10


@pytest.mark.parametrize(
    "reply", [Reply(output_tokens=200, cut_after_chunks=3), Reply(output_tokens=6, fault="close_mid_body")]
)
def test_a_stream_closed_half_way(provider: FakeProvider, openai: OpenAI, reply: Reply) -> None:
    provider.reply = reply
    seen: list[str | None] = []
    with (
        pytest.raises(sdk.APIConnectionError),
        openai.chat.completions.create(model="gpt-4o", messages=HI, stream=True) as chunks,
    ):
        seen.extend(chunk.choices[0].delta.content for chunk in chunks)
    assert [text for text in seen if text] == ["a", " small", " coin"]
    (line,) = provider.bill
    assert line.usage.output == min(reply.output_tokens or 0, 3 + 64)


def test_errors_in_streams(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(fault="error_first_event")
    with pytest.raises(sdk.APIError):
        stream(openai)
    assert provider.bill == []
    provider.reply = Reply(output_tokens=200, fault="error_mid_stream", cut_after_chunks=5)
    with pytest.raises(sdk.APIError):
        stream(openai)
    assert provider.billed().output == 5 + 64
    for fault in ("error_first_event", "error_mid_stream"):
        provider.reply = Reply(fault=fault)
        with pytest.raises(sdk.InternalServerError):
            plain(openai)
    assert provider.calls == 1


def test_responses_error_event(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(fault="error_mid_stream", cut_after_chunks=2)
    with openai.responses.create(model="gpt-4o", input="Hi", stream=True) as chunks:
        kinds = [event.type for event in chunks]
    assert kinds[-1] == "error"
    assert kinds.count("response.output_text.delta") == 2


@pytest.mark.parametrize("call", [plain, stream])
def test_garbage_is_billed_in_full(provider: FakeProvider, openai: OpenAI, call: Call) -> None:
    provider.reply = Reply(fault="garbage")
    try:
        call(openai)
    except (sdk.APIError, ValueError):
        pass  # what the SDK makes of it is its own affair
    assert provider.billed().output == 10


def test_usage_that_is_absent_zero_or_a_lie_changes_no_bill(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(usage="absent")
    assert plain(openai).usage is None
    provider.reply = Reply(usage="zero")
    assert plain(openai).usage.total_tokens == 0
    assert provider.billed_tokens == 2 * (HI_TOKENS + 10)


def test_a_body_of_ones_own(provider: FakeProvider) -> None:
    provider.reply = Reply(body={"mine": 1}, headers={"X-Mine": "yes", "Content-Type": "text/plain"})
    answer, body = post(provider, {})
    assert (answer.status, answer.headers["x-mine"], answer.headers["content-type"]) == (200, "yes", "text/plain")
    assert body == b'{"mine":1}'
    provider.reply = Reply(status=418, body="short and stout")
    assert post(provider, {})[1] == b"short and stout"
    provider.reply = Reply(body=b"\xff\xfe")
    assert post(provider, {})[1] == b"\xff\xfe"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("split", [None, 1, 7])
def test_gzip_if_the_client_takes_it(provider: FakeProvider, streamed: bool, split: int | None) -> None:
    provider.reply = Reply(gzip=True, split_bytes=split)
    refused, clear = post(provider, {"stream": streamed}, **{"accept-encoding": "identity"})
    taken, packed = post(provider, {"stream": streamed}, **{"accept-encoding": "gzip, deflate"})
    assert refused.headers["content-encoding"] is None
    assert taken.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed).replace(b"00000002", b"00000001") == clear


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(split=st.integers(1, 40), packed=st.booleans())
def test_however_a_body_is_split_the_sdks_read_the_same(
    provider: FakeProvider, openai: OpenAI, anthropic: Anthropic, split: int, packed: bool
) -> None:
    provider.reply = Reply(split_bytes=split, gzip=packed)
    assert plain(openai).choices[0].message.content == TEN_WORDS
    with openai.responses.stream(model="gpt-4o", input="Hi") as events:
        assert events.get_final_response().output_text == TEN_WORDS
    with anthropic.messages.stream(model="claude-sonnet-5", max_tokens=50, messages=HI) as blocks:
        assert blocks.get_final_text() == TEN_WORDS


def test_chunks_of_ones_own_and_of_several_tokens(provider: FakeProvider, openai: OpenAI) -> None:
    def texts() -> list[str]:
        return [text for chunk in stream(openai) if (text := chunk.choices[0].delta.content)]

    provider.reply = Reply(chunks=["one two ", "three", " 🪙"], chunk_delay_seconds=0.001)
    assert texts() == ["one two ", "three", " 🪙"]
    assert provider.billed().output == 4
    provider.reply = Reply(output_tokens=7, tokens_per_chunk=3)
    assert [len(text.split()) for text in texts()] == [3, 3, 1]
