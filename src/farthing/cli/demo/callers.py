"""
Who makes the demo's calls: the real ``openai`` package where it is installed, else Python's own HTTP client.

Both send the same chat completion. With the SDK, farthing governs the client itself; without, each call stands inside
of :func:`farthing.hold`, as a program without an SDK would write it.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Protocol
from urllib.parse import urlsplit

from .counters import Refused

MODEL = "gpt-4o"
PROMPT = "Say in one sentence why a farthing saved is a farthing earned."
OUTPUT_TOKENS = 60
_BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": PROMPT}],
    "max_completion_tokens": OUTPUT_TOKENS,
}


class Caller(Protocol):
    """Makes one call and returns the usage that the provider reported: ``(input_tokens, output_tokens)``."""

    def call(self) -> tuple[int, int]: ...
    def close(self) -> None: ...


def sdk_version() -> str | None:
    """The version of the openai package, or None where it is not installed."""
    if importlib.util.find_spec("openai") is None:
        return None
    import openai

    return openai.__version__


def make_caller(openai_url: str, *, governed: bool, call_usd: Decimal | None = None) -> Caller:
    """A caller of the provider at this URL. *call_usd*: the most that a call can cost, if it is known."""
    if sdk_version() is not None:
        return SDKCaller(openai_url, governed=governed)
    return HTTPCaller(openai_url, held_usd=call_usd if governed else None)


class SDKCaller:
    """The real package, governed by ``instrument`` or left as it is."""

    def __init__(self, openai_url: str, *, governed: bool) -> None:
        import openai

        from ...sdk import instrument

        # Without the machine's own settings: a proxy that is configured there would be asked for a loopback address.
        transport = openai.DefaultHttpxClient(trust_env=False)
        client = openai.OpenAI(
            base_url=openai_url, api_key="no-key-is-needed-here", max_retries=0, http_client=transport
        )
        self._client: Any = instrument(client) if governed else client

    def call(self) -> tuple[int, int]:
        usage = self._client.chat.completions.create(**_BODY).usage
        return usage.prompt_tokens, usage.completion_tokens

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def open_stream(self) -> Iterator[Any]:
        """A stream that is open, and not read yet."""
        stream: Iterator[Any] = self._client.chat.completions.create(
            **_BODY, stream=True, stream_options={"include_usage": True}
        )
        return stream

    @staticmethod
    def drain(stream: Iterator[Any]) -> tuple[int, int]:
        """Read a stream to its end; returns the usage that its last chunk reports."""
        usage = None
        for chunk in stream:
            usage = chunk.usage or usage
        if usage is None:
            raise ValueError("the stream ended without a usage figure")
        return usage.prompt_tokens, usage.completion_tokens


class HTTPCaller:
    """Python's own HTTP client; inside of a hold if *held_usd* is given."""

    def __init__(self, openai_url: str, *, held_usd: Decimal | None) -> None:
        self._url = urlsplit(openai_url)
        self._held_usd = held_usd

    def call(self) -> tuple[int, int]:
        from ...calls.manual import hold

        if self._held_usd is None:
            return self._post()
        with hold(usd=self._held_usd, model=MODEL) as held:
            input_tokens, output_tokens = self._post()
            held.settle({"input_tokens": input_tokens, "output_tokens": output_tokens})
        return input_tokens, output_tokens

    def close(self) -> None:
        """Nothing is kept open between calls."""

    def _post(self) -> tuple[int, int]:
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=60)
        try:
            connection.request(
                "POST",
                f"{self._url.path}/chat/completions",
                json.dumps(_BODY),
                {"Content-Type": "application/json", "Authorization": "Bearer no-key-is-needed-here"},
            )
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status == http.HTTPStatus.TOO_MANY_REQUESTS:
            evidence = answer["error"]["farthing"]
            raise Refused(had_room=Decimal(evidence["asked"]) <= Decimal(evidence["remaining"]))
        usage = answer["usage"]
        return usage["prompt_tokens"], usage["completion_tokens"]
