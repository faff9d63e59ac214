"""
The provider's own account: full, honest, and written when generation ends, whatever the client heard.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import openai as sdk
import pytest
from openai import OpenAI

from farthing.kernel.usage import Usage
from farthing.testing import FakeClock, FakeProvider, Rates, Reply
from tests.doors.clients import HASTY
from tests.unit.testing.words import HI, HI_TOKENS, count_words
from tests.waiting import eventually


def stream_and_leave(client: OpenAI, *, after: int, max_tokens: int, n: int = 1) -> int:
    """Reads so many chunks of a stream, leaves, and returns how many tokens it had seen."""
    seen = 0
    with client.chat.completions.create(model="gpt-4o", messages=HI, stream=True, max_tokens=max_tokens, n=n) as stream:
        while seen < after:
            seen += sum(bool(choice.delta.content) for choice in next(stream).choices)
    return seen


@pytest.mark.parametrize(
    ("ceiling", "billed"), [(1000, 5 + 64), (60, 60), (69, 69), (70, 69)], ids=["margin", "ceiling", "both", "one over"]
)
def test_a_stream_that_is_left_bills_what_was_sent_and_the_margin(
    provider: FakeProvider, openai: OpenAI, ceiling: int, billed: int
) -> None:
    provider.reply = Reply(output_tokens=10**6, pause_after_chunks=5)
    assert stream_and_leave(openai, after=5, max_tokens=ceiling) == 5
    provider.wait_idle()
    (line,) = provider.bill
    assert line.usage == Usage(input=HI_TOKENS, output=billed)
    assert line.aborted


def test_the_margin_is_the_providers_own(openai: OpenAI) -> None:
    with FakeProvider(Reply(output_tokens=500, pause_after_chunks=4), count=count_words, abort_margin=3) as provider:
        stream_and_leave(openai.with_options(base_url=provider.openai_url), after=4, max_tokens=400, n=2)
        provider.wait_idle()
        assert provider.billed().output == 4 + 3


def test_hidden_reasoning_is_billed_when_a_stream_is_left(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(output_tokens=500, reasoning_tokens=100, pause_after_chunks=2)
    stream_and_leave(openai, after=2, max_tokens=400)
    provider.wait_idle()
    assert provider.billed() == Usage(input=HI_TOKENS, output=166, reasoning=100)


def test_a_plain_answer_is_billed_in_full_though_the_client_left(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(output_tokens=300, pause_after_chunks=0)
    with pytest.raises(sdk.APITimeoutError):
        openai.with_options(timeout=HASTY).chat.completions.create(model="gpt-4o", messages=HI)
    provider.wait_idle()
    (line,) = provider.bill
    assert (line.usage.output, line.aborted) == (300, True)


@pytest.mark.parametrize(("streamed", "billed"), [(False, 300), (True, 20 + 64)])
def test_a_client_that_leaves_during_the_latency(
    provider: FakeProvider, streamed: bool, billed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain answer is generated to its end; of a stream the reasoning is done, and the margin follows."""
    provider.reply = Reply(latency_seconds=3_600, output_tokens=300, reasoning_tokens=20)
    server = provider._server
    assert server is not None
    call_later, begin = server.loop.call_later, []

    def later(seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        begin.append(callback)
        return call_later(seconds, callback)

    monkeypatch.setattr(server.loop, "call_later", later)
    with socket.create_connection(("127.0.0.1", int(provider.url.rsplit(":", 1)[1]))) as client:
        body = json.dumps({"model": "m", "messages": HI, "stream": streamed}).encode()
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    exchange = eventually(lambda: begin and begin[0].__self__)
    eventually(lambda: exchange._gone)
    if not streamed:
        assert provider.bill == []
        server.call(begin[0])  # the latency is over
    provider.wait_idle()
    (line,) = provider.bill
    assert (line.usage.output, line.usage.reasoning, line.aborted) == (billed, 20, True)


def test_the_line_is_there_before_the_answer_is(provider: FakeProvider, openai: OpenAI) -> None:
    openai.chat.completions.create(model="gpt-4o", messages=HI)
    assert provider.calls == 1
    with openai.chat.completions.create(model="gpt-4o", messages=HI, stream=True) as chunks:
        for chunk in chunks:
            if chunk.choices[0].finish_reason:
                assert provider.calls == 2
    assert provider.calls == 2


def test_counts_calls_in_flight_and_resumes_them(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(pause_after_chunks=0)
    with ThreadPoolExecutor(20) as pool:
        answers = [
            pool.submit(openai.chat.completions.create, model="gpt-4o", messages=HI, stream=stream)
            for stream in [False] * 10
            for _ in (0, 1)
        ]
        provider.wait_in_flight(20)
        assert (provider.in_flight, provider.bill) == (20, [])
        provider.resume()
        for answer in answers:
            answer.result()
    assert (provider.in_flight, provider.max_in_flight, provider.calls) == (0, 20, 20)


def test_waiting_ends_in_a_timeout(provider: FakeProvider) -> None:
    with pytest.raises(TimeoutError, match="not 1"):
        provider.wait_in_flight(1, timeout=0.01)
    provider.reply = Reply(fault="hang")
    with socket.create_connection(("127.0.0.1", int(provider.url.rsplit(":", 1)[1]))) as client:
        body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        with pytest.raises(TimeoutError, match="1 calls are still in flight"):
            provider.wait_idle(timeout=0.2)
    provider.wait_idle()


def test_stopping_bills_what_is_under_way(openai: OpenAI) -> None:
    provider = FakeProvider(Reply(output_tokens=200, pause_after_chunks=0), count=count_words).start()
    client = openai.with_options(base_url=provider.openai_url)

    def call() -> None:
        with pytest.raises(sdk.APIConnectionError):
            client.chat.completions.create(model="gpt-4o", messages=HI)

    thread = threading.Thread(target=call)
    thread.start()
    provider.wait_in_flight(1)
    provider.stop()
    thread.join()
    assert provider.billed().output == 200


def test_script_then_function_then_default(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply("default")
    provider.script([Reply("first"), Reply("second")])
    provider.respond(lambda request: Reply("to bob") if request.json.get("user") == "bob" else None)
    answers = [
        openai.chat.completions.create(model="gpt-4o", messages=HI, user=user).choices[0].message.content
        for user in ("bob", "bob", "bob", "eve")
    ]
    assert answers == ["first", "second", "to bob", "default"]


def test_what_a_function_raises_is_raised_by_stop(openai: OpenAI) -> None:
    def broken(request: object) -> Reply:
        raise LookupError("no such answer")

    provider = FakeProvider(count=count_words).start()
    provider.respond(broken)
    with pytest.raises(sdk.APIConnectionError):
        openai.with_options(base_url=provider.openai_url).chat.completions.create(model="gpt-4o", messages=HI)
    with pytest.raises(LookupError, match="no such answer"):
        provider.stop()
    assert provider.bill == []
    provider.stop()


def test_money_from_plain_rates_rounds_each_call_half_up(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(input_tokens=1, output_tokens=1)
    for model in ("a", "a", "b"):
        openai.chat.completions.create(model=model, messages=HI)
    rates: Rates = {"a": ("0.0005", 0), "b": (Decimal("2.5"), 10)}
    # a: half a nano-dollar a call, rounded up each time; b: 2,500 + 10,000.
    assert provider.billed_nano(rates) == 2 + 12_500
    assert provider.billed_usd(rates) == Decimal("0.000012502")
    with pytest.raises(ValueError, match="b"):
        provider.billed_nano({"a": (1, 1)})
    with pytest.raises(ValueError, match="rates are"):
        provider.billed_nano({"a": (1,), "b": (1, 1)})


def test_money_of_cached_input(provider: FakeProvider, openai: OpenAI) -> None:
    provider.reply = Reply(input_tokens=10, cached_tokens=4, cache_write_tokens=2, output_tokens=1)
    openai.chat.completions.create(model="a", messages=HI)
    assert provider.billed_nano({"a": (1, 0)}) == 10_000
    assert provider.billed_nano({"a": (1, 0, "0.5")}) == 8_000
    assert provider.billed_nano({"a": (1, 0, "0.5", 2)}) == 10_000


def test_times_are_the_clocks(openai: OpenAI) -> None:
    clock = FakeClock(5_000)
    with FakeProvider(now_ms=clock, count=count_words) as provider:
        answer = openai.with_options(base_url=provider.openai_url).chat.completions.create(model="m", messages=HI)
        assert answer.created == 5
        assert provider.bill[0].at == provider.requests[0].at == 5_000
