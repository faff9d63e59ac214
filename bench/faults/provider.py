"""
A provider that does to each call what its kind says, and keeps the bill of it.

Like real ones it bills what it generated, not what was read of it: a little more than it had sent when its client went
away, and a whole answer where it keeps that to itself.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import Awaitable, Callable

from .mix import GAVE_UP, REFUSALS, Call
from .wire import Ended, Wire

MODEL = "gpt-4o-2024-08-06"
EVENTS = 12
"""Of a stream, one token each; plain answers are as long."""
LONG_EVENTS = 2_000
BILLED_BEYOND = 16
"""What it had generated, and not sent, when its client went away in the middle: less than the margin of 64."""
_NAME = re.compile(rb'"user":"(\w+)"|/models/(\w+)')
_CEILING = re.compile(rb'"max_(?:completion_)?tokens":(\d+)')
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_WORD = " budget"

Behaviour = Callable[["Provider", Wire, Call, bytes], Awaitable[bool]]
"""What it does with a request (the last argument is its body); False: the connection ends behind it."""


class Provider:
    """Knows each call by the name in its body. ``prompt_tokens`` is what every request is billed for its input."""

    def __init__(self, prompt_tokens: int) -> None:
        self.calls: dict[str, Call] = {}
        self.connections: set[Wire] = set()
        self.hung_up = 0
        """Kept connections that it ended without a word."""
        self.failures: list[BaseException] = []
        self._prompt_tokens = prompt_tokens
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self) -> Wire:
        """The protocol of one more connection."""
        return Wire(self._made)

    def end_all(self) -> None:
        """End every connection, as a provider does with those that are idle."""
        for wire in tuple(self.connections):
            wire.close()

    def _made(self, wire: Wire) -> None:
        self.connections.add(wire)
        task = asyncio.get_running_loop().create_task(self._serve(wire))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, wire: Wire) -> None:
        try:
            while await self._one(wire):
                pass
        except Ended:
            pass
        except Exception as error:  # noqa: BLE001 - a bug of this bench, not of what it measures: said at the end
            self.failures.append(error)
        finally:
            self.connections.discard(wire)
            wire.close()

    async def _one(self, wire: Wire) -> bool:
        while not wire.received:
            await wire.changed()
        if wire.received[:1] == b"\x16":
            return False  # a client that wants TLS
        head = await wire.through(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await wire.exactly(int(length[1]) if length else 0)
        name = _NAME.search(head + body)
        if name is None:
            raise ValueError(f"a request of nobody: {head + body[:200]!r}")
        call = self.calls[(name[1] or name[2]).decode()]
        call.heard += 1
        if call.wire is not None:
            call.wire.wake()
        behaviour: Behaviour = getattr(type(self), call.kind.does)
        return await behaviour(self, wire, call, body)

    def _bill(self, call: Call, output: int = EVENTS) -> None:
        call.billed_prompt, call.billed_output = self._prompt_tokens, output

    # -- answers as they should be ---------------------------------------------------------------------------------

    async def answer(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        wire.send(self._whole(call))
        return True

    def _whole(self, call: Call, *, usage: bool = True, head: str = "") -> bytes:
        """Plain or a stream, as it was asked for."""
        if call.kind.stream:
            return _STREAM_HEAD + _events(call, EVENTS) + self._tail(call, EVENTS, usage=usage)
        message = {"role": "assistant", "content": _WORD * EVENTS}
        said: dict[str, object] = {
            "id": f"chatcmpl-{call.name}",
            "object": "chat.completion",
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        if usage:
            said["usage"] = self._usage(EVENTS)
        return _plain(200, said, head)

    def _tail(self, call: Call, output: int, *, usage: bool = True) -> bytes:
        """The end of a stream: its last event, its usage figure (every stream here is asked for it), its last words."""
        frames = [_frame(call, "{}", '"stop"')]
        if usage:
            figure = json.dumps(self._usage(output), separators=(",", ":"))
            frames.append(f'data: {{"id":"chatcmpl-{call.name}","model":"{MODEL}","choices":[],"usage":{figure}}}\n\n')
        return b"".join(map(_chunk, [*frames, "data: [DONE]\n\n"])) + _LAST_CHUNK

    def _usage(self, output: int) -> dict[str, int]:
        prompt = self._prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}

    async def _say(self, wire: Wire, call: Call, count: int, seconds: float = 0.0) -> None:
        """The head of a stream and so many events. Raises Ended, and has billed it, if the client goes meanwhile."""
        self._bill(call, 0)
        wire.send(_STREAM_HEAD)
        for _ in range(count):
            wire.send(_events(call, 1))
            call.billed_output += 1
            if seconds:
                await asyncio.sleep(seconds)
                if wire.ended:
                    call.billed_output += BILLED_BEYOND
                    raise Ended

    async def pace(self, wire: Wire, call: Call, body: bytes) -> bool:
        await self._say(wire, call, EVENTS, 0.001 + 0.003 * call.chance)
        wire.send(self._tail(call, EVENTS))
        return True

    async def think(self, wire: Wire, call: Call, body: bytes) -> bool:
        await asyncio.sleep(0.005 + 0.02 * call.chance)
        return await self.answer(wire, call, body)

    async def drip(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        whole = self._whole(call)
        size = 1 + int(call.chance * 200)
        for start in range(0, len(whole), size):
            wire.send(whole[start : start + size])
            await asyncio.sleep(0)
        return True

    async def hint(self, wire: Wire, call: Call, body: bytes) -> bool:
        wire.send(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")
        return await self.answer(wire, call, body)

    async def talk_long(self, wire: Wire, call: Call, body: bytes) -> bool:
        """More than the sockets on the way can hold: whoever reads it slowly makes it wait."""
        self._bill(call, LONG_EVENTS)
        wire.send(_STREAM_HEAD + _events(call, LONG_EVENTS) + self._tail(call, LONG_EVENTS))
        return True

    async def talk_on(self, wire: Wire, call: Call, body: bytes) -> bool:
        """Until the ceiling of the request, which its budget put there."""
        ceiling = _CEILING.search(body)
        if ceiling is None:
            raise ValueError(f"nothing bounds this call: {body[:200]!r}")
        count = int(ceiling[1])
        self._bill(call, 0)
        wire.send(_STREAM_HEAD)
        while call.billed_output < count:
            more = min(10, count - call.billed_output)
            wire.send(_events(call, more))
            call.billed_output += more
            await asyncio.sleep(0.001)
            if wire.ended:
                return False
        wire.send(self._tail(call, count))
        return True

    async def answer_and_close(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        wire.send(self._whole(call, head="connection: close\r\n"))
        return False

    async def answer_and_leave(self, wire: Wire, call: Call, body: bytes) -> bool:
        """It ends a connection that both ends said they would keep, as late as at the moment of the next request."""
        await self.answer(wire, call, body)
        await asyncio.sleep(0.003 * call.chance)
        if wire.received:
            return True  # the next one was faster
        self.hung_up += 1
        return False

    async def answer_too_much(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        wire.send(self._whole(call) + b"HTTP/1.1 408 Request Timeout\r\n")
        return False

    async def compress(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        head, _, said = self._whole(call).partition(b"\r\n\r\n")
        if call.kind.stream:
            wire.send(head + _GZIP + b"\r\n\r\n" + _compressed_chunks(said))
        else:
            packed = gzip.compress(said, 1, mtime=0)
            wire.send(_LENGTH.sub(b"\r\ncontent-length: %d" % len(packed), head) + _GZIP + b"\r\n\r\n" + packed)
        return True

    async def compress_badly(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        damaged = b"\x1f\x8b\x08\x00" + b"\xff" * 60
        if call.kind.stream:
            wire.send(_STREAM_HEAD.removesuffix(b"\r\n") + _GZIP[2:] + b"\r\n\r\n" + b"%x\r\n%b\r\n" % (64, damaged))
            wire.send(_LAST_CHUNK)
        else:
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 64" + _GZIP + b"\r\n\r\n" + damaged)
        return True

    async def forget_usage(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        wire.send(self._whole(call, usage=False))
        return True

    async def say_nothing(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        wire.send(_plain(200, {"hello": call.name}))
        return True

    # -- refusals --------------------------------------------------------------------------------------------------

    async def refuse(self, wire: Wire, call: Call, body: bytes) -> bool:
        wire.send(_plain(call.pick(REFUSALS), {"error": {"message": f"not today, {call.name}", "type": "fault"}}))
        return True

    async def give_up(self, wire: Wire, call: Call, body: bytes) -> bool:
        """A gateway does, and the provider behind it answers, and bills, all the same."""
        self._bill(call)
        wire.send(_plain(call.pick(GAVE_UP), {"error": {"message": f"no answer for {call.name} in time"}}))
        return True

    async def think_and_give_up(self, wire: Wire, call: Call, body: bytes) -> bool:
        await asyncio.sleep(0.005 + 0.02 * call.chance)
        return await self.give_up(wire, call, body)

    async def err_at_once(self, wire: Wire, call: Call, body: bytes) -> bool:
        wire.send(_STREAM_HEAD + _error(call) + _LAST_CHUNK)
        return True

    async def err_within(self, wire: Wire, call: Call, body: bytes) -> bool:
        await self._say(wire, call, 1 + int(call.chance * (EVENTS - 1)))
        wire.send(_error(call) + _LAST_CHUNK)
        return True

    # -- ends ------------------------------------------------------------------------------------------------------

    async def hang_up(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        return False

    async def think_and_hang_up(self, wire: Wire, call: Call, body: bytes) -> bool:
        await asyncio.sleep(0.005 + 0.02 * call.chance)
        return await self.hang_up(wire, call, body)

    async def reset(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        await _reset(wire)
        return False

    async def think_and_reset(self, wire: Wire, call: Call, body: bytes) -> bool:
        await asyncio.sleep(0.005 + 0.02 * call.chance)
        return await self.reset(wire, call, body)

    async def be_silent(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        await wire.to_the_end()
        return False

    async def stall(self, wire: Wire, call: Call, body: bytes) -> bool:
        await self._say(wire, call, int(call.chance * EVENTS))
        call.billed_output += BILLED_BEYOND
        await wire.to_the_end()
        return False

    async def talk_garbage(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        wire.send(b"\x00\xff no HTTP at all \r\n\r\n" if call.chance < 0.5 else b"HTTP/3 200 maybe\r\n\r\n{}")
        return False

    async def talk_too_much(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        wire.send(b"HTTP/1.1 200 OK\r\n" + b"x-filler: %b\r\n" % (b"x" * 1000) * 80)
        await wire.to_the_end()
        return False

    async def cut(self, wire: Wire, call: Call, body: bytes) -> bool:
        if call.kind.stream:
            # Paced, so that a client that goes within it is there to see its beginning.
            await self._say(wire, call, 1 + int(call.chance * (EVENTS - 1)), 0.001)
        else:
            self._bill(call)
            whole = self._whole(call)
            wire.send(whole[: 1 + int(call.chance * (len(whole) - 1))])
        return False

    async def cut_and_reset(self, wire: Wire, call: Call, body: bytes) -> bool:
        await self.cut(wire, call, body)
        await _reset(wire)
        return False

    async def cut_late(self, wire: Wire, call: Call, body: bytes) -> bool:
        self._bill(call)
        wire.send(self._whole(call).removesuffix(_chunk("data: [DONE]\n\n") + _LAST_CHUNK))
        return False

    async def break_framing(self, wire: Wire, call: Call, body: bytes) -> bool:
        await self._say(wire, call, 1 + int(call.chance * (EVENTS - 1)))
        wire.send(b"so many bytes:\r\n")
        await wire.to_the_end()
        return False

    async def end_early(self, wire: Wire, call: Call, body: bytes) -> bool:
        await self._say(wire, call, 1 + int(call.chance * (EVENTS - 1)))
        wire.send(_LAST_CHUNK)
        return True


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_GZIP = b"\r\ncontent-encoding: gzip"
_LAST_CHUNK = b"0\r\n\r\n"


def _plain(status: int, said: dict[str, object], head: str = "") -> bytes:
    body = json.dumps(said, separators=(",", ":"))
    return (
        f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\n{head}content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _frame(call: Call, delta: str, finish: str) -> str:
    choice = f'{{"index":0,"delta":{delta},"finish_reason":{finish}}}'
    return f'data: {{"id":"chatcmpl-{call.name}","model":"{MODEL}","choices":[{choice}],"usage":null}}\n\n'


def _events(call: Call, count: int) -> bytes:
    return _chunk(_frame(call, f'{{"content":"{_WORD}"}}', "null")) * count


def _error(call: Call) -> bytes:
    return _chunk(f'data: {{"error":{{"message":"no more for {call.name}","type":"server_error"}}}}\n\n')


def _chunk(text: str) -> bytes:
    return f"{len(text):x}\r\n{text}\r\n".encode()


def _compressed_chunks(chunked: bytes) -> bytes:
    """The same body as one gzip stream, flushed behind each of its chunks."""
    deflate = zlib.compressobj(1, wbits=31)
    out = b""
    rest = chunked
    while not rest.startswith(_LAST_CHUNK):
        size, _, rest = rest.partition(b"\r\n")
        data, rest = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        packed = deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
        out += b"%x\r\n%b\r\n" % (len(packed), packed)
    packed = deflate.flush()
    return out + b"%x\r\n%b\r\n" % (len(packed), packed) + _LAST_CHUNK


async def _reset(wire: Wire) -> None:
    # What was said before goes out first: a transport writes in the next turn of its loop.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    wire.reset()
