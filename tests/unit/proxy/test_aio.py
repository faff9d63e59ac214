"""The client that goes through a forward proxy, where it differs from our own."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

from farthing.proxy.aio import AioClient
from farthing.proxy.upstream import Broken, NotSent
from tests.unit.proxy.http1.hostile import SOON, Peer, hostile, run


def test_a_connection_that_was_stopped_serves_no_other_request() -> None:
    """The end of the answer had arrived by then, so it is whole. But nothing more is read on that connection."""

    async def main() -> None:
        end_it = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await end_it.wait()
            # Between these two lines no loop reads: what arrived is in the kernel when its reader stops.
            os.write(peer.writer.get_extra_info("socket").fileno(), b"0\r\n\r\n")
            assert response.stop()
            await peer.gone()

        async with hostile(script) as server:
            client = AioClient()
            response = await client.request("POST", server.url, [], b"{}", timeouts=SOON)
            assert await response.receive() == b"hello"
            end_it.set()
            assert await response.receive() == b""
            connector: Any = client._direct.connector
            assert not connector._conns, "another request could be written to it, until its end is read"
            await client.close()

    run("asyncio", main())


def test_another_protocol_is_no_answer() -> None:
    """It was passed on as one, and settled as an error that nobody is billed for."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            await peer.gone()

        async with hostile(script) as server:
            client = AioClient()
            with pytest.raises(Broken) as lost:
                await client.request("POST", server.url, [], b"{}", timeouts=SOON)
            assert lost.value.ending == "connection_lost"
            await client.close()

    run("asyncio", main())


def test_no_proxy_decides_for_this_machine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            head = await peer.request()
            assert head.startswith(b"POST http://127.0.0.1:1/v1 HTTP/1.1"), "a forward proxy is asked for the whole URL"
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

        async with hostile(script) as server:
            monkeypatch.setenv("HTTP_PROXY", server.url)
            monkeypatch.setenv("NO_PROXY", "")
            client = AioClient()
            response = await client.request("POST", "http://127.0.0.1:1/v1", [], b"{}", timeouts=SOON)
            assert await response.receive() == b"hello"
            await client.close()

    run("asyncio", main())


def test_what_a_forward_proxy_refuses_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            assert (await peer.request()).startswith(b"CONNECT provider.invalid:443 ")
            await peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")

        async with hostile(script) as server:
            monkeypatch.setenv("HTTPS_PROXY", server.url)
            client = AioClient()
            with pytest.raises(NotSent, match="connect_error") as caught:
                await client.request("POST", "https://provider.invalid/v1", [], b"{}", timeouts=SOON)
            assert "407" in (caught.value.note or "")
            await client.close()

    run("asyncio", main())


def test_where_nobody_can_look_something_may_be_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello")
            await peer.gone()

        def no_handle(descriptor: int) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        async with hostile(script) as server:
            client = AioClient()
            response = await client.request("POST", server.url, [], b"{}", timeouts=SOON)
            assert await response.receive() == b"hello"
            assert not response.has_unread()
            with monkeypatch.context() as full:
                full.setattr(os, "dup", no_handle)
                assert response.has_unread()
            response.abort()
            await client.close()

    run("asyncio", main())


def test_pieces_pass_a_reader_that_has_nothing_to_wait_for() -> None:
    async def main() -> None:
        passed: list[bytes] = []
        met = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await met.wait()
            await peer.send(b"5\r\nworld\r\n0\r\n\r\n")

        def through(data: bytes) -> bool:
            passed.append(data)
            met.set()
            return data == b"hello"

        async with hostile(script) as server:
            client = AioClient()
            response = await client.request("POST", server.url, [], b"{}", timeouts=SOON)
            assert await response.receive(through) == b"world"
            assert passed == [b"hello", b"world"]
            assert await response.receive(through) == b""
            await client.close()

    run("asyncio", main())
