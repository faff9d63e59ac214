"""
A fake provider: a real HTTP server on loopback, with an account of its own.

It answers as OpenAI, Anthropic and Gemini do.

::

    from openai import OpenAI
    from farthing.testing import FakeProvider, Reply

    with FakeProvider() as provider:
        client = OpenAI(base_url=provider.openai_url, api_key="fake")
        provider.reply = Reply("A penny saved.", input_tokens=12)
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
        provider.billed_tokens      # what it really charged, whatever your own books say

Every SDK, client or proxy that speaks HTTP can call it, from any thread, task or process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from types import TracebackType
from typing import Self

from ..kernel.usage import Usage
from .bill import Account, Billed, Rates, RecordedRequest, total_nano, total_usd
from .counting import Count, default_count
from .desk import Desk
from .reply import Reply
from .server import Server

ABORT_MARGIN_TOKENS = 64
"""How much a stream may still generate, and bill, after it was cut."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class FakeProvider:
    """
    Start it with ``with`` or with :meth:`start` and :meth:`stop`.

    It honours what a request asks: output ceilings (reasoning counts), ``n``, ``best_of``, streams with or without
    usage; and it refuses what the real ones refuse. A plain answer is generated and billed to its end even if the
    client has left; a stream that is cut goes on for at most *abort_margin* tokens. Bill lines are written when
    generation ends, before the client can have seen the end of its answer.

    How far a stream had come when its client left depends on timing, unless it is paused there: use
    ``Reply(pause_after_chunks=…)`` where a figure must be exact.

    Args:
        reply: the answer to every call that nothing else answers.
        port: 0 picks a free one.
        count: ``count(text, model)``, how this provider counts tokens; None: by :mod:`farthing.tokens`.
        max_output_tokens: where a request without a ceiling of its own stops.
        abort_margin: in tokens.
        strict: refuse fields that the endpoint does not know.
        now_ms: the clock of recorded times, in milliseconds since the epoch; a :class:`FakeClock` will do.
    """

    def __init__(
        self,
        reply: Reply | None = None,
        *,
        port: int = 0,
        count: Count | None = None,
        max_output_tokens: int = 32_768,
        abort_margin: int = ABORT_MARGIN_TOKENS,
        strict: bool = True,
        now_ms: Callable[[], int] = _now_ms,
    ) -> None:
        self.reply = reply or Reply()
        self._port = port
        self._account = Account()
        self._script: deque[Reply] = deque()
        self._function: Callable[[RecordedRequest], Reply | None] | None = None
        self._server: Server | None = None
        self._failures: list[BaseException] = []
        self._desk = Desk(
            self._account,
            self._choose,
            count=count or default_count,
            max_output_tokens=max_output_tokens,
            abort_margin=abort_margin,
            strict=strict,
            now_ms=now_ms,
        )

    # Life

    def start(self) -> Self:
        """Starts serving; raises OSError if the port is taken. Starting twice is an error."""
        if self._server is not None:
            raise RuntimeError("this fake provider is running already")
        self._server = Server(self._desk.answer, port=self._port, failed=self._failures.append)
        return self

    def stop(self) -> None:
        """
        Stops, and bills what was still under way. Raises what a function given to :meth:`respond` had raised.

        Stopping twice does nothing more; a forked child's copy of the provider does nothing at all.
        """
        if self._server is None:
            return
        self._server.stop()
        self._server = None
        if self._failures:
            failure = self._failures[0]
            self._failures.clear()
            raise failure

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # Where it is

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``. RuntimeError if it is not running."""
        return f"http://127.0.0.1:{self._running.port}"

    @property
    def openai_url(self) -> str:
        """What an OpenAI client takes as ``base_url``."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """What an Anthropic client takes as ``base_url``."""
        return self.url

    @property
    def gemini_url(self) -> str:
        """What a Google GenAI client takes as ``base_url`` in its ``http_options``."""
        return self.url

    # What it answers

    def script(self, replies: Iterable[Reply]) -> None:
        """The answers to the next calls, in order; after them, what else was set. Adds to what is left of a script."""
        self._script.extend(replies)

    def respond(self, function: Callable[[RecordedRequest], Reply | None] | None) -> None:
        """
        Answers by a function of the request, after any script; None from it means the default :attr:`reply`.

        It is called on the provider's own thread and must not block. What it raises closes the connection, and is
        raised again by :meth:`stop`. ``respond(None)`` takes it back.
        """
        self._function = function

    def resume(self) -> None:
        """Lets every answer go on that is paused now."""
        server = self._running
        server.call(server.resume_exchanges)

    # What it saw

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request that arrived, refused ones and model lists too."""
        return self._account.requests()

    @property
    def posts(self) -> int:
        """How many of them were POSTs: what reached the provider to be paid for, or be refused."""
        return sum(request.method == "POST" for request in self.requests)

    @property
    def in_flight(self) -> int:
        """Calls that are being generated now."""
        return self._account.in_flight

    @property
    def max_in_flight(self) -> int:
        """The most calls that were ever being generated at once."""
        return self._account.max_in_flight

    def wait_in_flight(self, calls: int, timeout: float = 60.0) -> None:
        """Waits until at least so many calls are being generated; TimeoutError after *timeout* seconds."""
        if not self._account.wait(calls, at_least=True, deadline=time.monotonic() + timeout):
            raise TimeoutError(f"{self.in_flight} calls are in flight, not {calls}, after {timeout} s")

    def wait_idle(self, timeout: float = 60.0) -> None:
        """
        Waits until everything that clients have sent is generated and billed; TimeoutError after *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        read = self._server is None or self._server.settle_down(timeout)
        if not read or not self._account.wait(0, at_least=False, deadline=deadline):
            raise TimeoutError(f"{self.in_flight} calls are still in flight after {timeout} s")

    # What it charged

    @property
    def bill(self) -> list[Billed]:
        """The provider's own account, a line per call that cost something, in the order in which they ended."""
        return self._account.lines()

    @property
    def calls(self) -> int:
        """How many calls were billed."""
        return len(self.bill)

    def billed(self, model: str | None = None) -> Usage:
        """All usage that was billed, or that of one model."""
        return sum((line.usage for line in self.bill if model in (None, line.model)), Usage())

    @property
    def billed_tokens(self) -> int:
        """Every token that was billed."""
        return self.billed().total_tokens

    def billed_nano(self, rates: Rates) -> int:
        """
        What the bill comes to in nano-dollars; each call rounds half up.

        *rates*: USD per million tokens by model, ``{"gpt-4o": ("2.50", "10")}`` for input and output; rates of cache
        reads and writes may follow. ValueError names a model without one.
        """
        return total_nano(self.bill, rates)

    def billed_usd(self, rates: Rates) -> Decimal:
        """The same in USD."""
        return total_usd(self.bill, rates)

    def forget(self) -> None:
        """Forgets the requests and the bill so far; what is in flight goes on."""
        self._account.forget()

    @property
    def _running(self) -> Server:
        if self._server is None:
            raise RuntimeError("this fake provider is not running: use it in a with block, or start() it")
        return self._server

    def _choose(self, request: RecordedRequest) -> Reply:
        if self._script:
            return self._script.popleft()
        return (self._function(request) if self._function is not None else None) or self.reply
