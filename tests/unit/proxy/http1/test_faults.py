"""Thousands of calls, with every fault at once: nothing leaks, nothing is sent twice, no answer is mixed up."""

from __future__ import annotations

import asyncio
import random
import re

from farthing.proxy.http1.client import Http1Client
from farthing.proxy.http1.pool import Limits
from farthing.proxy.upstream import Broken, NotSent
from tests.unit.proxy.http1.hostile import Peer, ask, client_of, hostile, run, whole

CALLS = 4_000
AT_ONCE = 64


class Provider:
    """Answers each call with its own number, unless chance has it otherwise."""

    def __init__(self, chance: random.Random) -> None:
        self.received: list[int] = []
        self._chance = chance

    async def __call__(self, peer: Peer) -> None:
        while True:
            number = int(re.search(rb"\{(\d+)\}", await peer.request())[1])  # type: ignore[index]
            self.received.append(number)
            said = b"answer %d" % number
            plain = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said)
            chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(said), said)
            match self._chance.randrange(12):
                case 0:
                    await peer.send(plain[: self._chance.randrange(len(plain))])
                    return
                case 1:
                    await peer.send(plain)
                    return  # a kept connection that is closed without a word
                case 2:
                    peer.reset()
                    return
                case 3:
                    await peer.send(b"no HTTP at all\r\n\r\n")
                    return
                case 4:
                    await peer.send(chunked)
                    return
                case 5:
                    await peer.send(plain + b"and more")
                case 6 | 7:
                    await peer.send(chunked)
                    await asyncio.sleep(0)
                    await peer.send(b"0\r\n\r\n")
                case 8:
                    await peer.send(chunked + b"0\r\n\r\n", piece=1 + self._chance.randrange(40))
                case _:
                    await peer.send(plain)


async def call(client: Http1Client, url: str, number: int, chance: random.Random) -> str:
    """How it went. Callers misbehave too: they go before the answer, or within it."""
    try:
        response = await ask(client, url, b"{%d}" % number)
        if chance.random() < 0.1:
            response.abort()
            return "left"
        if chance.random() < 0.05:
            response.stop()
        assert await whole(response) == b"answer %d" % number
    except Broken as error:
        return error.ending
    except NotSent:
        return "not sent"
    return "ok"


def test_faults_of_both_sides_leave_nothing_behind(loop: str) -> None:
    chance = random.Random(7)
    provider = Provider(chance)

    async def main() -> list[str]:
        endings: list[str] = []
        numbers = iter(range(CALLS))
        async with hostile(provider) as server, client_of(limits=Limits(max_idle=16)) as client:

            async def caller() -> None:
                for number in numbers:
                    task = asyncio.create_task(call(client, server.url, number, chance))
                    if chance.random() < 0.05:
                        await asyncio.sleep(0)
                        task.cancel()
                    [ending] = await asyncio.gather(task, return_exceptions=True)
                    if isinstance(ending, Exception):
                        raise ending
                    endings.append("cancelled" if isinstance(ending, BaseException) else ending)

            await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
            assert len(client._pools[server.url].idle) <= 16
        return endings

    endings = run(loop, main())
    assert len(endings) == CALLS
    assert len(set(provider.received)) == len(provider.received), "a call was sent twice"
    assert {"ok", "left", "cancelled", "connection_lost"} <= set(endings) <= {
        "ok", "left", "cancelled", "connection_lost", "not sent",
    }  # fmt: skip
    assert endings.count("ok") > CALLS / 2
