"""Every kind of answer, whole, in single bytes and cut at every byte: what arrives is what was sent, or an error."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from farthing.proxy.http1.errors import BadAnswer, ConnectionLost
from farthing.proxy.http1.response import Header, Response
from farthing.proxy.upstream import Broken
from tests.unit.proxy.http1.hostile import Peer, ask, client_of, hostile, run, whole


class Sample(NamedTuple):
    raw: bytes
    status: int
    headers: list[Header]
    body: bytes
    trailers: tuple[Header, ...] = ()
    reusable: bool = True
    method: str = "POST"


LENGTH = (b"Content-Length", b"5")
CHUNKED = (b"Transfer-Encoding", b"chunked")
SAMPLES = {
    "length": Sample(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, [LENGTH], b"hello"),
    "chunked, extensions and trailers": Sample(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n",
        200,
        [CHUNKED],
        b"hello",
        trailers=((b"X-Sum", b"1"),),
    ),
    "until the end of the connection": Sample(
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nhello", 200, [(b"X-A", b"b")], b"hello", reusable=False
    ),
    "1.0": Sample(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, [LENGTH], b"hello", reusable=False),
    "connection: close": Sample(
        b"HTTP/1.1 200 OK\r\nconnection: close\r\nContent-Length: 5\r\n\r\nhello",
        200,
        [(b"connection", b"close"), LENGTH],
        b"hello",
        reusable=False,
    ),
    "no body by status": Sample(b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", 204, [(b"X", b"y")], b""),
    "304 with a length": Sample(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, [LENGTH], b""),
    "HEAD": Sample(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, [LENGTH], b"", reusable=False, method="HEAD"),
    "1xx before it": Sample(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nhello",
        500,
        [LENGTH],
        b"hello",
    ),
    "names and values as they came, one name twice": Sample(
        b"HTTP/1.1 429 No\r\nSet-Cookie: a\r\nsEt-CoOkIe: b\xff\r\nEmpty:\r\nContent-Length: 5\r\n\r\nhello",
        429,
        [(b"Set-Cookie", b"a"), (b"sEt-CoOkIe", b"b\xff"), (b"Empty", b""), LENGTH],
        b"hello",
    ),
    "empty chunked": Sample(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, [CHUNKED], b""),
}


@pytest.mark.parametrize("piece", [None, 1, 7])
@pytest.mark.parametrize("name", SAMPLES)
def test_arrives_as_it_was_sent(loop: str, name: str, piece: int | None) -> None:
    sample = SAMPLES[name]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(sample.raw, piece=piece)
            if not sample.reusable:
                return

    async def main() -> int:
        async with hostile(script) as server, client_of() as client:
            for _ in range(3):
                response = await ask(client, server.url, method=sample.method)
                assert (response.status, response.headers) == (sample.status, sample.headers)
                assert await whole(response) == sample.body
                assert tuple(response.trailers) == sample.trailers
                response.abort()
            return server.connections

    assert run(loop, main()) == (1 if sample.reusable else 3)


async def read(response: Response, received: list[bytes]) -> None:
    while piece := await response.receive():
        received.append(piece)


@pytest.mark.parametrize("name", SAMPLES)
def test_cut_at_every_byte_is_an_error_and_what_arrived_comes_first(loop: str, name: str) -> None:
    sample = SAMPLES[name]
    ends_anywhere = sample.raw.index(b"hello") if name == "until the end of the connection" else len(sample.raw)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(sample.raw[: peer.number])

    async def main() -> None:
        async with hostile(script) as server, client_of() as client:
            for _ in range(ends_anywhere):
                received: list[bytes] = []
                with pytest.raises(ConnectionLost, match="connection_lost"):
                    await read(await ask(client, server.url, method=sample.method), received)
                assert sample.body.startswith(b"".join(received))

    run(loop, main())


BAD = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "another protocol's frames": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "a length with a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "an enormous length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
    "an enormous chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "a chunk without its end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n",
    "a chunk that is no number": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a transfer coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a transfer coding until the end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "101 without a word": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "a status of five digits": b"HTTP/1.1 20000 OK\r\nContent-Length: 5\r\n\r\nhello",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\nhello",
    "a bare line feed": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 3_000 + b"Content-Length: 5\r\n\r\nhello",
    "an endless header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
    "an endless status line": b"HTTP/1.1 200 " + b"O" * 200_000,
    "an endless row of 1xx": b"HTTP/1.1 102 Processing\r\n\r\n" * 10_000,
    "an endless trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * 400_000,
    "many trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 3_000,
    "an endless chunk extension": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"y" * 400_000,
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_an_answer_is_an_error_at_once(loop: str, name: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(BAD[name])
        await peer.gone()  # the client closes; nothing here does

    async def main() -> Broken:
        async with hostile(script) as server, client_of() as client:
            with pytest.raises(BadAnswer) as caught:
                await whole(await ask(client, server.url))
            assert not client._pools[server.url].idle
            return caught.value

    error = run(loop, main())
    assert error.ending == "connection_lost"
    assert error.note is not None
    assert error.note.startswith("not an HTTP/1.1 answer that can be used: ")
    assert len(error.note) < 200


@pytest.mark.parametrize("later", [False, True], ids=["with it", "later"])
@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", b"garbage"])
def test_bytes_behind_a_whole_answer_spoil_the_connection_not_the_answer(loop: str, extra: bytes, later: bool) -> None:
    answer = SAMPLES["length"].raw

    async def script(peer: Peer) -> None:
        await peer.request()
        if later:
            await peer.send(answer)
            await asyncio.sleep(0.01)
            await peer.send(extra)
        else:
            await peer.send(answer + extra)
        await peer.gone()

    async def main() -> int:
        async with hostile(script) as server, client_of() as client:
            for _ in range(3):
                assert await whole(await ask(client, server.url)) == b"hello"
                while client._pools[server.url].open:
                    await asyncio.sleep(0.001)
            return server.connections

    assert run(loop, main()) == 3
