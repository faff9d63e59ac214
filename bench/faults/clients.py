"""
Clients, many at once: each does with its request what its kind says, reads what comes, and looks whether it is its own.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping

from .mix import CUT, NOTHING, Call
from .provider import MODEL, Provider
from .wire import Ended, Wire

MESSAGES = [{"role": "user", "content": "What is a budget, and who may spend it? Answer in a sentence."}]
MAX_BODY_BYTES = 16 * 1024
"""What the proxy is told to take."""
PATIENCE_SECONDS = 120.0
_HEALTH = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
_NAMES = re.compile(rb"\b[cw]\d{6}\b")

Doing = Callable[["Clients", Call, Wire], Awaitable[bool]]
"""What a client does with a call on a connection; False: the connection is of no use any more."""


class Clients:
    """``keys`` are the texts of keys by team."""

    def __init__(self, port: int, provider: Provider, keys: Mapping[str, str]) -> None:
        self.done = 0
        self._port = port
        self._provider = provider
        self._keys = keys

    async def run(self, calls: Iterator[Call], at_once: int) -> None:
        """Make all these calls."""
        await asyncio.gather(*(self._client(calls) for _ in range(at_once)))

    async def _client(self, calls: Iterator[Call]) -> None:
        wire: Wire | None = None
        for call in calls:
            if wire is None or wire.ended:
                _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", self._port)
            self._provider.calls[call.name] = call
            call.wire = wire
            doing: Doing = getattr(type(self), call.kind.client)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    keep = await doing(self, call, wire)
            except TimeoutError:
                keep, call.wrong = False, f"no end after {PATIENCE_SECONDS:g} s"
            except Ended:
                keep = False
            call.wire = None
            self.done += 1
            if not keep:
                wire.close()
                wire = None
        if wire is not None:
            wire.close()

    # -- what is asked ---------------------------------------------------------------------------------------------

    def _body(self, call: Call) -> bytes:
        kind = call.kind
        asked: dict[str, object] = {"model": MODEL, "messages": MESSAGES, "user": call.name}
        if kind.team != "brief":
            asked["max_tokens"] = 3_000 if kind.does == "talk_long" else 64
        if kind.stream:
            asked["stream"] = True
            if call.chance < 0.5:
                asked["stream_options"] = {"include_usage": True}
        return json.dumps(asked, separators=(",", ":")).encode()

    def _head(self, call: Call, *more: str) -> bytes:
        asks = f"GET {{}}/v1/models/{call.name} " if call.kind.free else "POST {}/v1/chat/completions "
        lines = [
            asks.format(call.kind.upstream) + ("HTTP/1.0" if call.kind.client == "be_old" else "HTTP/1.1"),
            "host: localhost",
            "content-type: application/json",
            f"authorization: Bearer {self._keys[call.kind.team]}",
            f"x-farthing-tags: call={call.name}",
            *more,
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def _request(self, call: Call) -> bytes:
        if call.kind.free:
            return self._head(call)
        body = self._body(call)
        return self._head(call, f"content-length: {len(body)}") + body

    # -- what is read ----------------------------------------------------------------------------------------------

    async def _read(self, call: Call, wire: Wire) -> bool:
        """The whole answer. False: it was the last on this connection."""
        status = 0
        body = b""
        try:
            head = (await wire.through(b"\r\n\r\n")).lower()
            status = int(head[9:12])
            if b"\r\ntransfer-encoding: chunked\r\n" in head:
                pieces = []
                while size := int(await wire.through(b"\r\n"), 16):
                    pieces.append((await wire.exactly(size + 2))[:-2])
                await wire.exactly(2)
                body = b"".join(pieces)
            elif length := re.search(rb"\r\ncontent-length: (\d+)", head):
                body = await wire.exactly(int(length[1]))
            else:
                await wire.to_the_end()
                body = wire.take(len(wire.received))
        except Ended:
            call.answer = NOTHING if not status else CUT if status == 200 else f"{status}, {CUT}"
            return False
        call.answer = str(status)
        if b"\r\ncontent-encoding: gzip" in head and call.kind.does == "compress":
            body = gzip.decompress(body)
        names = set(_NAMES.findall(body))
        if status == 200 and names != {call.name.encode()} and call.kind.does != "compress_badly":
            call.wrong = f"an answer to {names or 'nobody'}"
        return b"\r\nconnection: close" not in head

    async def _heard(self, call: Call, wire: Wire) -> None:
        """Wait until the provider has the request, or anything else has come of it."""
        while not call.heard and not wire.received:
            await wire.changed()

    # -- what clients do: they stay and read the answer … ----------------------------------------------------------

    async def stay(self, call: Call, wire: Wire) -> bool:
        if wire.received:
            call.wrong = f"said before it was asked: {wire.received[:60]!r}"
        wire.send(self._request(call))
        return await self._read(call, wire)

    async def drip(self, call: Call, wire: Wire) -> bool:
        request = self._request(call)
        size = 1 + int(call.chance * 200)
        for start in range(0, len(request), size):
            wire.send(request[start : start + size])
            await asyncio.sleep(0)
        return await self._read(call, wire)

    async def expect(self, call: Call, wire: Wire) -> bool:
        body = self._body(call)
        wire.send(self._head(call, f"content-length: {len(body)}", "expect: 100-continue"))
        said = await wire.through(b"\r\n\r\n")
        if not said.startswith(b"HTTP/1.1 100 "):
            call.wrong = f"not told to continue: {said[:60]!r}"
        wire.send(body)
        return await self._read(call, wire)

    async def be_old(self, call: Call, wire: Wire) -> bool:
        wire.send(self._request(call))
        await self._read(call, wire)
        return False

    async def pipeline(self, call: Call, wire: Wire) -> bool:
        wire.send(self._request(call) + _HEALTH)
        if not await self._read(call, wire):
            return False
        if not (await wire.through(b'"ok"}')).startswith(b"HTTP/1.1 200 "):
            call.wrong = "its second request was answered otherwise"
        return True

    async def half_close(self, call: Call, wire: Wire) -> bool:
        wire.send(self._request(call))
        if call.chance < 0.5:
            await self._heard(call, wire)
        wire.shut()
        await self._read(call, wire)
        return False

    async def read_slowly(self, call: Call, wire: Wire) -> bool:
        wire.narrow()
        wire.send(self._request(call))
        for _ in range(20):
            wire.pause()
            await asyncio.sleep(0.005)
            wire.go_on()
            await asyncio.sleep(0)
        await self._read(call, wire)
        return False

    # -- … they go after their request, and before the end of its answer … -----------------------------------------

    async def leave(self, call: Call, wire: Wire) -> bool:
        wire.send(self._request(call))
        await self._heard(call, wire)
        return False

    async def pipeline_and_leave(self, call: Call, wire: Wire) -> bool:
        wire.send(self._request(call) + _HEALTH)
        await self._heard(call, wire)
        return False

    async def leave_at_once(self, call: Call, wire: Wire) -> bool:
        wire.send(self._request(call))
        return False

    async def leave_soon(self, call: Call, wire: Wire) -> bool:
        wire.send(self._request(call))
        await asyncio.sleep(0.02 * call.chance)
        return False

    async def leave_within(self, call: Call, wire: Wire) -> bool:
        wire.send(self._request(call))
        enough = 400 + int(call.chance * 1_200)
        # Of an answer that is no stream the rest will not come.
        while len(wire.received) < enough and wire.received[9:12] in (bytearray(), bytearray(b"200")):
            await wire.changed()
        return False

    async def reset_within(self, call: Call, wire: Wire) -> bool:
        await self.leave_within(call, wire)
        wire.reset()
        return False

    # -- … or their request is none --------------------------------------------------------------------------------

    async def send_nonsense(self, call: Call, wire: Wire) -> bool:
        body = self._body(call)
        body = body[: 1 + int(call.chance * (len(body) - 2))]
        wire.send(self._head(call, f"content-length: {len(body)}") + body)
        return await self._read(call, wire)

    async def send_half(self, call: Call, wire: Wire) -> bool:
        request = self._request(call)
        wire.send(request[: -1 - int(call.chance * 100)])
        await asyncio.sleep(0.002)
        return False

    async def stall(self, call: Call, wire: Wire) -> bool:
        request = self._request(call)
        wire.send(request[: -1 - int(call.chance * 100)])
        return await self._read(call, wire)

    async def announce_too_much(self, call: Call, wire: Wire) -> bool:
        wire.send(self._head(call, f"content-length: {MAX_BODY_BYTES + 1}") + b"x" * 100)
        return await self._read(call, wire)

    async def send_too_much(self, call: Call, wire: Wire) -> bool:
        wire.send(self._head(call, "transfer-encoding: chunked"))
        for _ in range(MAX_BODY_BYTES // 1024 + 1):
            wire.send(b"400\r\n%b\r\n" % (b"x" * 1024))
            await asyncio.sleep(0)
        return await self._read(call, wire)

    async def boast(self, call: Call, wire: Wire) -> bool:
        wire.send(self._head(call, f"x-boast: {'x' * (80 * 1024)}"))
        return await self._read(call, wire)

    async def talk_garbage(self, call: Call, wire: Wire) -> bool:
        wire.send(b"\x16\x03\x01 no HTTP at all\r\n\r\n" if call.chance < 0.5 else b"GET\r\n\r\n")
        return await self._read(call, wire)
