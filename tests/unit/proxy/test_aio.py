"""The client that goes through a forward proxy, where it differs from our own."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from farthing.proxy.aio import AioClient
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
            connector: Any = client._session.connector
            assert not connector._conns, "another request could be written to it, until its end is read"
            await client.close()

    run("asyncio", main())
