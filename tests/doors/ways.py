"""
The ways to make one call with an SDK, each written once and run with its sync and its async client.

A run gives back what the caller saw: every typed object in order, and the exception, if it ended with one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

import httpx2
from pydantic import BaseModel

from farthing.testing import FakeProvider
from tests.doors import clients
from tests.doors.clients import HASTY, HI


class Word(BaseModel):
    """For structured output."""

    word: str


CHAT: Mapping[str, Any] = {"model": "gpt-4o", "messages": HI, "max_completion_tokens": 200}
RESPONSES: Mapping[str, Any] = {"model": "gpt-4o", "input": "hi", "max_output_tokens": 200}
MESSAGES: Mapping[str, Any] = {"model": "claude-haiku-4-5", "messages": HI, "max_tokens": 200}


@dataclass(frozen=True)
class Way:
    """
    ``style``: *plain* returns an object, *stream* an iterator, *helper* a context manager that gives events and then
    what ``final`` names, *raw* an envelope to ``parse()``, *raw_stream* one around an iterator, *streaming_raw* a
    context manager with such an envelope.
    """

    endpoint: str
    path: str
    style: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    final: str = ""
    with_options: bool = False

    @property
    def id(self) -> str:
        extra = "+usage" if "stream_options" in self.arguments else ""
        options = "with_options." if self.with_options else ""
        return f"{self.endpoint}:{options}{self.path}:{self.style}{extra}"

    @property
    def sdk(self) -> str:
        return "anthropic" if self.endpoint == "messages" else "openai"

    @property
    def streams(self) -> bool:
        return self.style in ("stream", "helper", "raw_stream")

    def keywords(self) -> dict[str, Any]:
        base = {"chat": CHAT, "responses": RESPONSES, "messages": MESSAGES}[self.endpoint]
        stream = {"stream": True} if self.style in ("stream", "raw_stream") else {}
        return {**base, **stream, **self.arguments}


_ASK_USAGE = {"stream_options": {"include_usage": True}}

WAYS = (
    Way("chat", "chat.completions.create", "plain"),
    Way("chat", "chat.completions.create", "plain", with_options=True),
    Way("chat", "chat.completions.parse", "plain", {"response_format": Word}),
    Way("chat", "beta.chat.completions.parse", "plain", {"response_format": Word}),
    Way("chat", "chat.completions.with_raw_response.create", "raw"),
    Way("chat", "chat.completions.with_streaming_response.create", "streaming_raw"),
    Way("chat", "chat.completions.create", "stream"),
    Way("chat", "chat.completions.create", "stream", _ASK_USAGE),
    Way("chat", "chat.completions.create", "stream", with_options=True),
    Way("chat", "chat.completions.with_raw_response.create", "raw_stream"),
    Way("chat", "chat.completions.stream", "helper", final="get_final_completion"),
    Way("chat", "chat.completions.stream", "helper", _ASK_USAGE, final="get_final_completion"),
    Way("chat", "beta.chat.completions.stream", "helper", final="get_final_completion"),
    Way("responses", "responses.create", "plain"),
    Way("responses", "responses.create", "plain", with_options=True),
    Way("responses", "responses.parse", "plain", {"text_format": Word}),
    Way("responses", "responses.with_raw_response.create", "raw"),
    Way("responses", "responses.with_streaming_response.create", "streaming_raw"),
    Way("responses", "responses.create", "stream"),
    Way("responses", "responses.with_raw_response.create", "raw_stream"),
    Way("responses", "responses.stream", "helper", final="get_final_response"),
    Way("messages", "messages.create", "plain"),
    Way("messages", "messages.create", "plain", with_options=True),
    Way("messages", "messages.parse", "plain", {"output_format": Word}),
    Way("messages", "beta.messages.create", "plain"),
    Way("messages", "messages.with_raw_response.create", "raw"),
    Way("messages", "messages.with_streaming_response.create", "streaming_raw"),
    Way("messages", "messages.create", "stream"),
    Way("messages", "beta.messages.create", "stream"),
    Way("messages", "messages.with_raw_response.create", "raw_stream"),
    Way("messages", "messages.stream", "helper", final="get_final_message"),
    Way("messages", "beta.messages.stream", "helper", final="get_final_message"),
)
"""Every entry point of the three endpoints."""


class Seen(NamedTuple):
    """What a caller saw: each object's class and content, and the error's class, status and body."""

    objects: tuple[tuple[type, Any], ...]
    error: tuple[type, Any, Any] | None = None


def run(way: Way, provider: FakeProvider | str, *, governed: bool, hasty_within: bool = False, **options: Any) -> Seen:
    """One call with a fresh sync client. *hasty_within*: it has little patience, once the answer has begun."""
    make = clients.anthropic_client if way.sdk == "anthropic" else clients.openai_client
    seen: list[Any] = []
    with make(provider, governed=governed, **options) as client:
        if hasty_within:
            client._client.event_hooks = {"response": [_hurry]}
        try:
            _call(way, client, seen)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises is what is compared
            return Seen(_shown(seen), _shown_error(error))
    return Seen(_shown(seen))


async def run_async(
    way: Way, provider: FakeProvider | str, *, governed: bool, hasty_within: bool = False, **options: Any
) -> Seen:
    """One call with a fresh async client."""
    make = clients.async_anthropic_client if way.sdk == "anthropic" else clients.async_openai_client
    seen: list[Any] = []
    async with make(provider, governed=governed, **options) as client:
        if hasty_within:
            client._client.event_hooks = {"response": [_hurry_async]}
        try:
            await _call_async(way, client, seen)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises is what is compared
            return Seen(_shown(seen), _shown_error(error))
    return Seen(_shown(seen))


def _hurry(response: httpx2.Response) -> None:
    """As HASTY, from its head on: what comes behind that came with it, so that only what stalls is waited for."""
    response.request.extensions["timeout"]["read"] = HASTY.read


async def _hurry_async(response: httpx2.Response) -> None:
    _hurry(response)


def _call(way: Way, client: Any, seen: list[Any]) -> None:
    target = attrgetter(way.path)(client.with_options(timeout=client.timeout) if way.with_options else client)
    made = target(**way.keywords())
    match way.style:
        case "plain":
            seen.append(made)
        case "raw":
            seen.append(made.parse())
        case "streaming_raw":
            with made as response:
                seen.append(response.parse())
        case "helper":
            with made as stream:
                seen.extend(stream)
                seen.append(getattr(stream, way.final)())
        case "raw_stream" | "stream":
            with made.parse() if way.style == "raw_stream" else made as stream:
                for item in stream:
                    seen.append(item)  # noqa: PERF402 - what was seen before an error counts


async def _call_async(way: Way, client: Any, seen: list[Any]) -> None:
    target = attrgetter(way.path)(client.with_options(timeout=client.timeout) if way.with_options else client)
    made: Any = target(**way.keywords())
    if way.style not in ("helper", "streaming_raw"):
        made = await made
    match way.style:
        case "plain":
            seen.append(made)
        case "raw":
            seen.append(await _parsed(made))
        case "streaming_raw":
            async with made as response:
                seen.append(await _parsed(response))
        case "helper":
            async with made as stream:
                async for item in stream:
                    seen.append(item)  # noqa: PERF401 - what was seen before an error counts
                seen.append(await getattr(stream, way.final)())
        case "raw_stream" | "stream":
            async with await _parsed(made) if way.style == "raw_stream" else made as stream:
                async for item in stream:
                    seen.append(item)  # noqa: PERF401 - what was seen before an error counts


async def _parsed(response: Any) -> Any:
    parsed = response.parse()
    return await parsed if inspect.isawaitable(parsed) else parsed


def _shown(seen: list[Any]) -> tuple[tuple[type, Any], ...]:
    return tuple((type(item), item.model_dump(warnings=False)) for item in seen)


def _shown_error(error: Exception) -> tuple[type, Any, Any]:
    return type(error), getattr(error, "status_code", None), getattr(error, "body", None)
