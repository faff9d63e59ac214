"""
DSPy's own client stands on sockets alone (the library lm15, of which DSPy carries a copy): it cannot be governed, so it
is noticed, and refused where install() is in force.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
from lm15.transports import StdlibAsyncTransport, StdlibTransport, TransportRequest

import farthing
from farthing.testing import FakeProvider, Reply
from tests.compat.ledger import HI, entries

pytestmark = pytest.mark.usefixtures("farthing_isolated")


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(Reply("a coin")) as running:
        yield running
        farthing.uninstall()


def _request(provider: FakeProvider) -> TransportRequest:
    headers = [("content-type", "application/json"), ("x-stainless-lang", "python")]
    body = json.dumps({"model": "gpt-4o", "messages": HI, "max_tokens": 20}).encode()
    return TransportRequest("POST", f"{provider.openai_url}/chat/completions", headers, body)


def _sync(provider: FakeProvider) -> int:
    with StdlibTransport() as transport, transport.stream(_request(provider)) as answer:
        answer.read()
        return int(answer.status)


def _async(provider: FakeProvider) -> int:
    async def ask() -> int:
        async with StdlibAsyncTransport() as transport, transport.stream(_request(provider)) as answer:
            await answer.read()
            return int(answer.status)

    return asyncio.run(ask())


@pytest.mark.parametrize("call", [_sync, _async])
def test_it_is_noticed_and_refused_under_install(call: Callable[[FakeProvider], int], provider: FakeProvider) -> None:
    with farthing.budget(tokens=1_000), pytest.warns(farthing.UngovernedClientWarning, match='engine="litellm"'):
        assert call(provider) == 200
    farthing.install()
    with farthing.budget(tokens=1_000), pytest.raises(farthing.UnmeteredCall, match="leaves by lm15"):
        call(provider)
    assert provider.posts == 1
    assert entries() == []
