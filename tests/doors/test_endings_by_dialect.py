"""
The door table, fifth part: every way in which a call can end, for every dialect there is, below any SDK.

:mod:`.test_endings` crosses the endings with the methods of two SDKs. Here they are crossed with the dialects, sent as
plain HTTP: what a call costs is decided by the bytes, whoever sends them. An untouched client makes the same call to a
twin of the provider: both must see the same bytes, or the same exception. Each attempt leaves exactly one row.

Pruned, because the cells are equal to one that is present:

* statuses: 429 and 500 stand for all errors that bill nothing, 504 for gateways that gave up.
* a plain answer has no first event and no middle; a stream is not "cut in its body" twice.
* streams for the endpoints that have them (embeddings and images have none here).
* images: no faults of a stream, for FakeProvider makes no images; their bytes are given (:func:`_image`).
* retries are the SDKs' (:mod:`.test_endings`); HTTP/2, redirects and connections too (:mod:`.test_connections`).
* what a caller does with a stream (drains it late, leaves it): close and break are one thing below the SDK.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx2
import pytest

import farthing
from farthing.kernel.hold import Entry
from farthing.testing import FakeProvider, Reply
from farthing.testing.bill import Billed, cost_nano
from tests.doors.clients import HASTY, NOTHING, entries, holds

pytestmark = pytest.mark.usefixtures("farthing_isolated")

CEILING, LONG = 200, 150
_TLS = ssl.create_default_context()
"""One for all clients: each would read the certificates anew."""


@dataclass(frozen=True)
class Wire:
    """One dialect, plain or streamed: what is posted where. ``hidden``: its model reasons in secret."""

    name: str
    path: str
    body: Mapping[str, Any]
    stream: bool = False
    host: str = "url"
    headers: Mapping[str, str] = field(default_factory=dict)
    ceiling: int = CEILING
    hidden: bool = False

    @property
    def id(self) -> str:
        return f"{self.name}-{'stream' if self.stream else 'plain'}"


HI = [{"role": "user", "content": "hi"}]
_CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
_GEMINI: dict[str, Any] = {**_CONTENTS, "generationConfig": {"maxOutputTokens": CEILING}}
_ANTHROPIC = {"anthropic-version": "2023-06-01", "x-api-key": "fake"}
_GOOGLE = {"x-goog-api-key": "fake"}


def _pair(name: str, path: str, body: dict[str, Any], **more: Any) -> tuple[Wire, Wire]:
    return Wire(name, path, body, **more), Wire(name, path, {**body, "stream": True}, stream=True, **more)


_CHAT = {"messages": HI, "max_completion_tokens": CEILING}
CHAT = _pair("openai.chat", "/v1/chat/completions", {**_CHAT, "model": "gpt-4o"})
REASONING = _pair("openai.chat, reasoning", "/v1/chat/completions", {**_CHAT, "model": "gpt-5"}, hidden=True)
RESPONSES = _pair("openai.responses", "/v1/responses", {"model": "gpt-4o", "input": "hi", "max_output_tokens": CEILING})
COMPLETIONS = _pair(
    "openai.completions",
    "/v1/completions",
    {"model": "gpt-3.5-turbo-instruct", "prompt": "Once", "max_tokens": CEILING},
)
MESSAGES = _pair(
    "anthropic.messages",
    "/v1/messages",
    {"model": "claude-haiku-4-5", "messages": HI, "max_tokens": CEILING},
    headers=_ANTHROPIC,
)
_FLASH = "/v1beta/models/gemini-2.5-flash"
_OLD_FLASH = "/v1beta/models/gemini-2.0-flash"
GEMINI = (
    Wire("gemini.generate", f"{_FLASH}:generateContent", _GEMINI, headers=_GOOGLE, hidden=True),
    Wire(
        "gemini.generate", f"{_FLASH}:streamGenerateContent?alt=sse", _GEMINI, stream=True, headers=_GOOGLE, hidden=True
    ),
    Wire("gemini.generate, array", f"{_OLD_FLASH}:streamGenerateContent", _GEMINI, stream=True, headers=_GOOGLE),
    Wire("gemini.generate, 2.0", f"{_OLD_FLASH}:generateContent", _GEMINI, headers=_GOOGLE),
    Wire("gemini.generate, 2.0", f"{_OLD_FLASH}:streamGenerateContent?alt=sse", _GEMINI, stream=True, headers=_GOOGLE),
)
COHERE = _pair(
    "cohere.chat", "/v2/chat", {"model": "command-a-03-2025", "messages": HI, "max_tokens": CEILING}, hidden=True
)
EMBEDDINGS = (
    Wire("openai.embeddings", "/v1/embeddings", {"model": "text-embedding-3-small", "input": "a coin"}, ceiling=0),
    Wire(
        "gemini.embeddings",
        "/v1beta/models/gemini-embedding-001:embedContent",
        {"content": {"parts": [{"text": "a coin"}]}},
        headers=_GOOGLE,
        ceiling=0,
    ),
)
WIRES = (*CHAT, *REASONING, *RESPONSES, *COMPLETIONS, *MESSAGES, *GEMINI, *COHERE, *EMBEDDINGS)
RATES = {
    "gpt-4o": ("2.50", "10", "1.25"),
    "gpt-5": ("1.25", "10", "0.125"),
    "gpt-3.5-turbo-instruct": ("1.50", "2"),
    "claude-haiku-4-5": ("1", "5", "0.1", "1.25"),
    "gemini-2.5-flash": ("0.30", "2.50", "0.03"),
    "gemini-2.0-flash": ("0.10", "0.40", "0.025"),
    "command-a-03-2025": ("2.50", "10"),
    "text-embedding-3-small": ("0.02", "0"),
    "gemini-embedding-001": ("0.15", "0"),
}
"""USD per million tokens, as published, and not read from the price table that is under test."""

Check = Callable[[Wire, Entry, list[Billed]], None]


def as_billed(wire: Wire, entry: Entry, bill: list[Billed]) -> None:
    (line,) = bill
    assert (entry.ending, entry.usage_source, entry.suspect) == ("ok", "provider", False)
    assert dict(entry.usage) == line.usage.to_dict()
    assert entry.cost_nano == cost_nano(line.usage, RATES[line.model])


def as_reported_zero(wire: Wire, entry: Entry, bill: list[Billed]) -> None:
    assert (entry.ending, entry.usage_source, entry.usage, entry.cost_nano) == ("ok", "provider", (), 0)


def as_said(name: str) -> Check:
    """Without a figure: counted as it was delivered; where reasoning is hidden, or nothing came, at the hold."""

    def check(wire: Wire, entry: Entry, bill: list[Billed]) -> None:
        source = "estimate" if wire.hidden else "counted"
        # A model that no table names may reason for all we know, but a complete answer of it is counted.
        sources = {source, "counted"} if wire.name == "cohere.chat" and name == "ok" else {source}
        assert entry.ending == name or (name == "cut" and entry.ending in ("connection_lost", "ended_early"))
        assert entry.usage_source in sources
        assert not entry.suspect
        _covers(wire, entry, bill)

    return check


def as_held(name: str, *, suspect: bool = False) -> Check:
    def check(wire: Wire, entry: Entry, bill: list[Billed]) -> None:
        assert (entry.ending, entry.usage_source, entry.suspect) == (name, "estimate", suspect)
        assert entry.tokens("output") == wire.ceiling
        _covers(wire, entry, bill)

    return check


def as_void(name: str) -> Check:
    def check(wire: Wire, entry: Entry, bill: list[Billed]) -> None:
        assert bill == []
        assert (entry.ending, entry.usage, entry.cost_nano, entry.suspect) == (name, (), 0, False)
        assert entry.said.amounts == (0, 0, 1, 0)

    return check


def _covers(wire: Wire, entry: Entry, bill: list[Billed]) -> None:
    """What was billed is in the books, and the books stay within the hold."""
    given = entry.tokens("input", "cached", "cache_write")
    assert given <= entry.facts.input_tokens
    assert entry.tokens("output") <= wire.ceiling
    for line in bill:
        assert line.usage.input_tokens <= given
        assert line.usage.output_tokens <= entry.tokens("output")
        assert cost_nano(line.usage, RATES[line.model]) <= (entry.cost_nano or 0)


@dataclass(frozen=True)
class Ending:
    name: str
    reply: Reply
    check: Check
    plain: bool = True
    stream: bool = True
    timeout: httpx2.Timeout | float = 60

    def is_for(self, wire: Wire) -> bool:
        return self.stream if wire.stream else self.plain


ENDINGS = (
    Ending("usage", Reply(), as_billed),
    Ending("cut by its own ceiling", Reply(output_tokens=10_000), as_billed),
    Ending("gzip in odd pieces", Reply(gzip=True, split_bytes=7), as_billed),
    Ending("usage absent", Reply(usage="absent", output_tokens=LONG), as_said("ok")),
    Ending("usage zero", Reply(usage="zero"), as_reported_zero),
    Ending("status 429", Reply(status=429), as_void("http_429")),
    Ending("status 500", Reply(status=500), as_void("http_500")),
    Ending("status 504", Reply(status=504, output_tokens=LONG, bill_anyway=True), as_held("http_504", suspect=True)),
    Ending(
        "timeout",
        Reply(fault="hang", output_tokens=LONG, bill_anyway=True),
        as_held("timeout", suspect=True),
        timeout=HASTY,
    ),
    Ending(
        "reset", Reply(fault="reset", output_tokens=LONG, bill_anyway=True), as_held("connection_lost", suspect=True)
    ),
    Ending(
        "closed unanswered",
        Reply(fault="close_before_answer", bill_anyway=True),
        as_held("connection_lost", suspect=True),
    ),
    Ending(
        "body cut",
        Reply(fault="close_mid_body", output_tokens=LONG),
        as_held("connection_lost", suspect=True),
        stream=False,
    ),
    Ending("garbage", Reply(fault="garbage", output_tokens=LONG), as_held("unreadable"), stream=False),
    Ending("stream cut", Reply(output_tokens=LONG, cut_after_chunks=3), as_said("cut"), plain=False),
    Ending("error as first event", Reply(fault="error_first_event"), as_void("error"), plain=False),
    Ending(
        "error in the middle",
        Reply(fault="error_mid_stream", output_tokens=LONG, cut_after_chunks=3),
        as_said("cut"),
        plain=False,
    ),
)
CELLS = [
    pytest.param(ending, wire, id=f"{ending.name}-{wire.id}")
    for ending in ENDINGS
    for wire in WIRES
    if ending.is_for(wire) and not (wire.ceiling == 0 and ending.name in ("cut by its own ceiling", "usage absent"))
]


class Seen(NamedTuple):
    """What a caller saw: the status, the body's bytes, the exception's class."""

    status: int | None
    body: bytes
    error: type | None


def _comparable(seen: Seen, wire: Wire) -> Seen:
    """
    What must be the same. A plain answer that breaks off in its body does so before its head is passed on; and OpenAI
    says ``"usage":null`` in each chunk of a stream whose usage frame was asked for (the frame itself is taken out).
    """
    if not wire.stream and seen.error is not None:
        return Seen(None, b"", seen.error)
    return seen._replace(body=seen.body.replace(b',"usage":null', b""))


def _request(wire: Wire, provider: FakeProvider) -> dict[str, Any]:
    headers = {"x-stainless-lang": "python"} if not wire.headers else dict(wire.headers)
    return {"url": f"{provider.url}{wire.path}", "json": dict(wire.body), "headers": headers}


def _send(wire: Wire, provider: FakeProvider, timeout: httpx2.Timeout | float, *, governed: bool) -> Seen:
    seen, status = b"", None
    with httpx2.Client(timeout=timeout, verify=_TLS) as client:
        if governed:
            farthing.instrument(client)
        try:
            with client.stream("POST", **_request(wire, provider)) as response:
                status = response.status_code
                for piece in response.iter_bytes():
                    seen += piece
        except httpx2.TransportError as error:
            return Seen(status, seen, type(error))
    return Seen(status, seen, None)


async def _send_async(wire: Wire, provider: FakeProvider, timeout: httpx2.Timeout | float, *, governed: bool) -> Seen:
    seen, status = b"", None
    async with httpx2.AsyncClient(timeout=timeout, verify=_TLS) as client:
        if governed:
            farthing.instrument(client)
        try:
            async with client.stream("POST", **_request(wire, provider)) as response:
                status = response.status_code
                async for piece in response.aiter_bytes():
                    seen += piece
        except httpx2.TransportError as error:
            return Seen(status, seen, type(error))
    return Seen(status, seen, None)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("ending", "wire"), CELLS)
def test_ending(ending: Ending, wire: Wire, asynchronous: bool) -> None:
    def call(provider: FakeProvider, *, governed: bool) -> Seen:
        if asynchronous:
            return asyncio.run(_send_async(wire, provider, ending.timeout, governed=governed))
        return _send(wire, provider, ending.timeout, governed=governed)

    with (
        FakeProvider(ending.reply, now_ms=lambda: 0) as untouched,
        FakeProvider(ending.reply, now_ms=lambda: 0) as provider,
    ):
        wanted = call(untouched, governed=False)
        with farthing.budget(usd=1, tokens=10_000) as budget:
            seen = call(provider, governed=True)
        provider.wait_idle()
        bill = provider.bill
        assert provider.posts == 1
    assert _comparable(seen, wire) == _comparable(wanted, wire)
    (row,) = entries()
    ending.check(wire, row, bill)
    assert budget.held == NOTHING
    assert holds("held") == []
    assert budget.suspect.tokens == (row.tokens("input", "output") if row.suspect else 0)
    settled = 0 if row.suspect else row.tokens("input", "cached", "cache_write", "output")
    assert budget.spent.tokens == settled


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire.stream], ids=lambda wire: wire.id)
def test_a_stream_left_half_way(wire: Wire, asynchronous: bool) -> None:
    """Closed by its caller: what arrived, and the margin; where reasoning is hidden, the hold."""

    async def main(provider: FakeProvider) -> None:
        async with httpx2.AsyncClient(verify=_TLS, timeout=60) as client:
            farthing.instrument(client)
            async with client.stream("POST", **_request(wire, provider)) as response:
                async for _ in response.aiter_bytes():
                    break

    with FakeProvider(Reply(output_tokens=LONG, pause_after_chunks=3)) as provider:
        with farthing.budget(usd=1, tokens=10_000) as budget:
            if asynchronous:
                asyncio.run(main(provider))
            else:
                with httpx2.Client(verify=_TLS, timeout=60) as client:
                    farthing.instrument(client)
                    with client.stream("POST", **_request(wire, provider)) as response:
                        for _ in response.iter_bytes():
                            break
            (row,) = entries()
            assert budget.held == NOTHING
        provider.wait_idle()
        as_said("abandoned")(wire, row, provider.bill)


# -- images ----------------------------------------------------------------------------------------------------------

IMAGE = {"model": "gpt-image-1-mini", "prompt": "a coin", "quality": "low", "size": "1024x1024"}


def _image(status: int, **more: Any) -> httpx2.Response:
    return httpx2.Response(status, json={"created": 0, "data": [{"b64_json": "iVBORw0KGgo="}], **more})


_IMAGE_USAGE = {
    "input_tokens": 10, "input_tokens_details": {"text_tokens": 10, "image_tokens": 0}, "output_tokens": 272,
    "total_tokens": 282,
}  # fmt: skip
IMAGES: dict[str, tuple[Callable[[], httpx2.Response], str, str, bool]] = {
    "usage": (lambda: _image(200, usage=_IMAGE_USAGE), "ok", "provider", False),
    # Nothing in it can be counted: what was held is what it cost.
    "usage absent": (lambda: _image(200), "unreadable", "estimate", False),
    "status 500": (lambda: httpx2.Response(500, json={"error": {}}), "http_500", "provider", False),
    "status 504": (lambda: httpx2.Response(504), "http_504", "estimate", True),
    "garbage": (lambda: httpx2.Response(200, content=b"<html>"), "unreadable", "estimate", False),
}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, asynchronous: bool) -> None:
    answer, ending, source, suspect = IMAGES[name]
    request: dict[str, Any] = {
        "url": "https://api.openai.com/v1/images/generations", "json": IMAGE, "headers": {"x-stainless-lang": "python"},
    }  # fmt: skip

    async def main() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: answer())) as client:
            farthing.instrument(client)
            await client.post(**request)

    with farthing.budget(usd=1, tokens=10_000) as budget:
        if asynchronous:
            asyncio.run(main())
        else:
            with httpx2.Client(transport=httpx2.MockTransport(lambda _: answer())) as client:
                farthing.instrument(client)
                client.post(**request)
    (row,) = entries()
    assert (row.facts.dialect, row.ending, row.suspect) == ("openai.images", ending, suspect)
    if not unpaid(ending):
        assert row.usage_source == source
        assert row.cost_nano
        # The picture is billed by its size, whatever was said of it.
        assert row.tokens("output", "output_image") >= 272
    assert budget.held == NOTHING


def unpaid(ending: str) -> bool:
    return ending == "http_500"
