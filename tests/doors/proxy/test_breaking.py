"""
Goal: a stream through the proxy ends in good order when its hold is used up, and its provider stops at once.
Method: a standing budget that breaks, the real SDKs, and a provider that keeps to no ceiling and waits where the cut is
due: it goes on only if nobody leaves.
"""

from __future__ import annotations

from typing import Any

import pytest

from farthing.kernel.budget import make_budget
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, anthropic_client, openai_client
from tests.doors.proxy.running import entries, holds, proxy_with, settings_for


def endless(after: int) -> Reply:
    return Reply(output_tokens=100_000, keeps_ceiling=False, pause_after_chunks=after)


@pytest.mark.parametrize("endpoint", ["chat", "responses", "messages"])
def test_a_stream_ends_in_order_when_its_hold_is_used_up(fake_provider: FakeProvider, endpoint: str) -> None:
    fake_provider.reply = endless(136)
    seen: list[Any]
    with proxy_with(settings_for(fake_provider)) as server:
        server.runtime.put_budget(make_budget("night", tokens=208, on_exceed="break", standing=True))
        if endpoint == "messages":
            ask: Any = {"model": "claude-haiku-4-5", "max_tokens": 5_000, "messages": HI}
            with anthropic_client(server.url, governed=False) as claude, claude.messages.stream(**ask) as blocks:
                assert blocks.get_final_message().stop_reason == "max_tokens"
        elif endpoint == "chat":
            with openai_client(f"{server.url}/v1", governed=False) as client:
                seen = list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
            assert len([chunk for chunk in seen if chunk.choices[0].delta.content]) == 136
            assert seen[-1].choices[0].finish_reason == "length"
        else:
            with openai_client(f"{server.url}/v1", governed=False) as client:
                seen = list(client.responses.create(model="gpt-4o", input="hi", stream=True))
            assert seen[-1].type == "response.incomplete"
        fake_provider.wait_idle()
        (entry,) = entries(server)
        assert entry.ending == "cut"
        assert entry.tokens("input", "output") <= 208
        assert fake_provider.billed_tokens <= 208
        assert holds(server) == []
