"""
The door table, fourth part: the endpoints beside chat, responses and messages. Completions, embeddings, images and
Gemini, through the real SDKs, in budgets of every mode: refused before anything leaves, lowered where there is
something to lower, settled to the provider's own bill.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from google.genai import Client, types
from openai import APIConnectionError, OpenAI

import farthing
from farthing.errors import UnmeteredCall
from farthing.kernel.hold import Entry
from farthing.sdk.hook import govern_transport
from farthing.testing import FakeProvider, Reply
from farthing.testing.bill import cost_nano
from tests.doors.clients import NOTHING, entries, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")

SMALL, LARGE = "text-embedding-3-small", "text-embedding-3-large"
INSTRUCT, FLASH, LITE = "gpt-3.5-turbo-instruct", "gemini-2.5-flash", "gemini-2.5-flash-lite"
RATES = {
    SMALL: ("0.02", "0"),
    LARGE: ("0.13", "0"),
    INSTRUCT: ("1.50", "2"),
    FLASH: ("0.30", "2.50", "0.03"),
    LITE: ("0.10", "0.40", "0.01"),
    "gemini-embedding-001": ("0.15", "0"),
}
"""USD per million tokens, as published, and not read from the price table that is under test."""


@pytest.fixture
def openai(fake_provider: FakeProvider) -> Iterator[OpenAI]:
    with openai_client(fake_provider) as client:
        yield client


@pytest.fixture
def gemini(fake_provider: FakeProvider) -> Iterator[Client]:
    with Client(api_key="fake", http_options=types.HttpOptions(base_url=fake_provider.gemini_url)) as client:
        yield farthing.instrument(client)


def settled(provider: FakeProvider) -> Entry:
    """The one row, which must be the one line of the bill."""
    provider.wait_idle()
    (row,) = entries()
    (line,) = provider.bill
    assert dict(row.usage) == line.usage.to_dict()
    assert row.cost_nano == cost_nano(line.usage, RATES[line.model])
    assert (row.ending, row.usage_source, row.overrun) == ("ok", "provider", ())
    return row


def sent(provider: FakeProvider) -> Any:
    return provider.requests[-1].json


# --- embeddings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits", [{"tokens": 100}, {"usd": Decimal("0.01")}, {"tokens": 100, "usd": Decimal("0.01")}, {}], ids=str
)
@pytest.mark.parametrize("mode", ["block", "clamp"])
def test_embeddings_are_held_for_their_input_and_nothing_is_added(
    fake_provider: FakeProvider, openai: OpenAI, limits: dict[str, Any], mode: str
) -> None:
    if not limits:
        mine = openai.embeddings.create(model=SMALL, input=["a farthing", "two farthings"])
        budget = None
    else:
        with farthing.budget(**limits, on_exceed=mode) as budget:
            mine = openai.embeddings.create(model=SMALL, input=["a farthing", "two farthings"])
    assert len(mine.data) == 2
    row = settled(fake_provider)
    assert row.tokens("output") == 0
    assert sent(fake_provider) == {
        "model": SMALL, "input": ["a farthing", "two farthings"], "encoding_format": "base64",
    }  # fmt: skip
    if budget is not None:
        assert budget.spent.tokens == fake_provider.billed_tokens
        assert budget.held == NOTHING


@pytest.mark.parametrize("mode", ["block", "clamp"])
@pytest.mark.parametrize("limits", [{"tokens": 20}, {"usd": Decimal("0.0000001")}], ids=str)
def test_embeddings_that_do_not_fit_never_leave(
    fake_provider: FakeProvider, openai: OpenAI, limits: dict[str, Any], mode: str
) -> None:
    with farthing.budget(**limits, on_exceed=mode) as budget, pytest.raises(farthing.BudgetExceeded):
        openai.embeddings.create(model=SMALL, input="one two three four five six " * 10)
    assert fake_provider.posts == 0
    assert budget.spent == budget.held == NOTHING


def test_embeddings_are_not_uncapped(fake_provider: FakeProvider, openai: OpenAI) -> None:
    """They have no ceiling to set, so a budget that rejects requests without one lets them pass."""
    with farthing.budget(tokens=100, uncapped="reject", min_output_tokens=50):
        openai.embeddings.create(model=SMALL, input="a farthing")
    settled(fake_provider)


def test_embeddings_of_token_ids(fake_provider: FakeProvider, openai: OpenAI) -> None:
    with farthing.budget(tokens=20) as budget:
        openai.embeddings.create(model=SMALL, input=[[5, 6, 7], [8, 9]])
    settled(fake_provider)
    assert budget.spent.tokens == 5
    with farthing.budget(tokens=20), pytest.raises(farthing.BudgetExceeded):
        openai.embeddings.create(model=SMALL, input=[list(range(21))])


def test_embeddings_are_downgraded(fake_provider: FakeProvider, openai: OpenAI) -> None:
    text = "one two three four five six seven eight"
    with farthing.budget(usd=Decimal("0.000001"), on_exceed="downgrade", downgrade={LARGE: SMALL}):
        openai.embeddings.create(model=LARGE, input=text)
    row = settled(fake_provider)
    assert (row.facts.model, row.facts.asked_model) == (SMALL, LARGE)


@pytest.mark.parametrize(
    "reply", [Reply(status=504, bill_anyway=True), Reply(fault="reset", bill_anyway=True)], ids=["504", "reset"]
)
def test_lost_embeddings_are_suspect_at_their_input(fake_provider: FakeProvider, openai: OpenAI, reply: Reply) -> None:
    """No output was held, so none is assumed, in a budget or without one."""
    fake_provider.reply = reply
    with farthing.budget(tokens=100) as budget, pytest.raises(Exception):  # noqa: B017 - the SDK's own
        openai.embeddings.create(model=SMALL, input="a farthing")
    assert budget.suspect.tokens >= fake_provider.billed_tokens > 0
    with pytest.raises(Exception):  # noqa: B017 - the SDK's own
        openai.embeddings.create(model=SMALL, input="a farthing")
    assert [row.tokens("output") for row in entries()] == [0, 0]


def test_embeddings_without_a_figure_are_counted(fake_provider: FakeProvider, openai: OpenAI) -> None:
    fake_provider.reply = Reply(usage="absent")
    with farthing.budget(tokens=100):
        openai.embeddings.create(model=SMALL, input="a farthing")
    (row,) = entries()
    assert (row.usage_source, row.tokens("output")) == ("counted", 0)
    assert row.tokens("input") >= fake_provider.billed_tokens


def test_a_crossing_embedding_is_on_the_exception(fake_provider: FakeProvider, openai: OpenAI) -> None:
    with farthing.budget(tokens=1, on_exceed="raise"), pytest.raises(farthing.BudgetExceeded) as caught:
        openai.embeddings.create(model=SMALL, input="a farthing is a small coin")
    assert type(caught.value.result).__name__ == "CreateEmbeddingResponse"
    settled(fake_provider)


# --- completions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_without_max_tokens_is_held_for_sixteen(
    fake_provider: FakeProvider, openai: OpenAI, stream: bool
) -> None:
    """What the endpoint does of itself is put on the wire, so that a server that does otherwise keeps to it too."""
    fake_provider.reply = Reply(output_tokens=10_000)
    with farthing.budget(tokens=100, uncapped="reject"):
        answer: Any = openai.completions.create(model=INSTRUCT, prompt="Once", stream=stream)
        text = "".join(chunk.choices[0].text for chunk in answer) if stream else answer.choices[0].text
    assert len(text.split()) == 16
    assert sent(fake_provider)["max_tokens"] == 16
    assert settled(fake_provider).tokens("output") == 16


def test_without_a_budget_a_completion_goes_out_as_it_is(fake_provider: FakeProvider, openai: OpenAI) -> None:
    openai.completions.create(model=INSTRUCT, prompt="Once")
    assert sent(fake_provider) == {"model": INSTRUCT, "prompt": "Once"}
    settled(fake_provider)


@pytest.mark.parametrize("mode", ["block", "clamp"])
def test_every_prompt_and_every_best_of_is_held(fake_provider: FakeProvider, openai: OpenAI, mode: str) -> None:
    fake_provider.reply = Reply(output_tokens=10_000)
    keywords: Any = {"model": INSTRUCT, "prompt": ["Once", "Twice"], "n": 2, "best_of": 3}
    with farthing.budget(tokens=100, on_exceed=mode, min_output_tokens=4) as budget:
        if mode == "block":
            with pytest.raises(farthing.BudgetExceeded):
                openai.completions.create(**keywords, max_tokens=20)
            assert (fake_provider.posts, budget.held) == (0, NOTHING)
            return
        openai.completions.create(**keywords, max_tokens=20)
    row = settled(fake_provider)
    # Six texts share what is left of a hundred.
    assert row.tokens("output") == 6 * sent(fake_provider)["max_tokens"]
    assert 80 < budget.spent.tokens <= 100


def test_a_cut_completion_is_counted(fake_provider: FakeProvider, openai: OpenAI) -> None:
    fake_provider.reply = Reply(output_tokens=150, cut_after_chunks=3)
    with farthing.budget(tokens=1000), pytest.raises(APIConnectionError):
        for _ in openai.completions.create(model=INSTRUCT, prompt="Once", max_tokens=200, stream=True):
            pass
    (row,) = entries()
    fake_provider.wait_idle()
    assert (row.usage_source, row.tokens("output")) == ("counted", 3 + 64)
    assert row.tokens("output") == fake_provider.billed().output


# --- images ------------------------------------------------------------------------------------------------------

IMAGE = {
    "created": 0,
    "data": [{"b64_json": "iVBORw0KGgo="}],
    "usage": {
        "input_tokens": 10, "input_tokens_details": {"text_tokens": 10, "image_tokens": 0}, "output_tokens": 272,
        "total_tokens": 282,
    },
}  # fmt: skip


def image_client(seen: list[Any]) -> OpenAI:
    """A client whose transport answers every request with an image."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(json.loads(request.content))
        return httpx2.Response(200, json=IMAGE)

    transport = httpx2.MockTransport(answer)
    govern_transport(transport, sdk="openai")
    return OpenAI(api_key="fake", http_client=httpx2.Client(transport=transport), max_retries=0)


def test_an_image_is_held_whole_and_settled_to_its_tokens() -> None:
    seen: list[Any] = []
    with image_client(seen) as client:
        with farthing.budget(tokens=10_000, usd=Decimal("0.10")) as budget:
            client.images.generate(model="gpt-image-1-mini", prompt="a coin")
        assert (budget.spent.tokens, budget.held) == (282, NOTHING)
        # Text at $2, the image at $8 a million.
        assert budget.spent.usd == (10 * 2 + 272 * 8) / Decimal(1_000_000)
        with farthing.budget(tokens=6_000, on_exceed="clamp"), pytest.raises(farthing.BudgetExceeded):
            client.images.generate(model="gpt-image-1-mini", prompt="a coin")
    assert seen == [{"model": "gpt-image-1-mini", "prompt": "a coin"}]


def test_an_image_without_a_bound_follows_open_bound() -> None:
    seen: list[Any] = []
    with image_client(seen) as client:
        with farthing.budget(tokens=1_000_000), pytest.raises(UnmeteredCall, match="image output of gpt-image-2"):
            client.images.generate(model="gpt-image-2", prompt="a coin")
        assert seen == []
        with farthing.budget(tokens=1_000_000, open_bound="overrun") as budget:
            client.images.generate(model="gpt-image-2", prompt="a coin")
        assert budget.spent.tokens == 282
        with farthing.budget(tokens=1_000_000), pytest.raises(UnmeteredCall, match="by the image"):
            client.images.generate(model="dall-e-3", prompt="a coin")
        with farthing.budget(tokens=1_000_000), pytest.raises(UnmeteredCall, match="multipart"):
            client.images.edit(model="gpt-image-1-mini", prompt="a coin", image=b"png")
    assert len(seen) == 1


# --- Gemini ------------------------------------------------------------------------------------------------------


def asked(**fields: Any) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(**fields)


@pytest.mark.parametrize("stream", [False, True])
def test_content_is_held_and_settled_to_the_bill(fake_provider: FakeProvider, gemini: Client, stream: bool) -> None:
    fake_provider.reply = Reply(cached_tokens=1, reasoning_tokens=30, output_tokens=40)
    call: Any = gemini.models.generate_content_stream if stream else gemini.models.generate_content
    with farthing.budget(tokens=10_000, usd=Decimal("0.10")) as budget:
        answer = call(model=FLASH, contents="Hi there", config=asked(max_output_tokens=200))
        text = "".join(chunk.text or "" for chunk in answer) if stream else answer.text
    assert len(text.split()) == 10
    row = settled(fake_provider)
    assert (row.tokens("reasoning"), row.facts.model, row.facts.dialect) == (30, FLASH, "gemini.generate")
    assert budget.spent.tokens == fake_provider.billed_tokens
    assert budget.held == NOTHING


@pytest.mark.parametrize("stream", [False, True])
def test_content_is_clamped_in_its_own_field(fake_provider: FakeProvider, gemini: Client, stream: bool) -> None:
    fake_provider.reply = Reply(output_tokens=10_000)
    call: Any = gemini.models.generate_content_stream if stream else gemini.models.generate_content
    with farthing.budget(tokens=100, on_exceed="clamp") as budget:
        answer = call(model=FLASH, contents="Hi there", config=asked(max_output_tokens=5000, temperature=0.5))
        last = list(answer)[-1] if stream else answer
    assert last.candidates[0].finish_reason is types.FinishReason.MAX_TOKENS
    config = sent(fake_provider)["generationConfig"]
    assert config.pop("temperature") == 0.5
    assert settled(fake_provider).tokens("output") == config.pop("maxOutputTokens")
    assert config == {}
    assert 50 < budget.spent.tokens <= 100


@pytest.mark.parametrize("stream", [False, True])
def test_a_downgrade_changes_the_path(fake_provider: FakeProvider, gemini: Client, stream: bool) -> None:
    call: Any = gemini.models.generate_content_stream if stream else gemini.models.generate_content
    budget = farthing.budget(usd=Decimal("0.0002"), on_exceed="downgrade", downgrade={FLASH: LITE})
    with budget:
        answer = call(model=FLASH, contents="Hi there", config=asked(max_output_tokens=200))
        list(answer) if stream else None
    row = settled(fake_provider)
    method = "streamGenerateContent" if stream else "generateContent"
    assert fake_provider.requests[-1].path.endswith(f"/models/{LITE}:{method}")
    assert fake_provider.requests[-1].query == ("alt=sse" if stream else "")
    assert (row.facts.model, row.facts.asked_model) == (LITE, FLASH)


def test_content_that_does_not_fit_never_leaves(fake_provider: FakeProvider, gemini: Client) -> None:
    with farthing.budget(tokens=100), pytest.raises(farthing.BudgetExceeded):
        gemini.models.generate_content(model=FLASH, contents="Hi", config=asked(max_output_tokens=500))
    with farthing.budget(tokens=100), pytest.raises(farthing.BudgetExceeded):
        # The system instruction and the tools count too.
        gemini.models.generate_content(
            model=FLASH, contents="Hi", config=asked(max_output_tokens=5, system_instruction="a coin " * 100)
        )
    assert fake_provider.posts == 0


def test_open_content_follows_open_bound(fake_provider: FakeProvider, gemini: Client) -> None:
    search = asked(max_output_tokens=50, tools=[types.Tool(google_search=types.GoogleSearch())])
    with farthing.budget(tokens=100_000), pytest.raises(farthing.BudgetExceeded):
        gemini.models.generate_content(model=FLASH, contents="Hi", config=search)
    with farthing.budget(tokens=100_000, open_bound="reject"), pytest.raises(UnmeteredCall, match="googleSearch"):
        gemini.models.generate_content(model=FLASH, contents="Hi", config=search)
    with farthing.budget(tokens=100_000, open_bound="overrun"):
        gemini.models.generate_content(model=FLASH, contents="Hi", config=search)
    settled(fake_provider)


def test_what_is_free_passes_a_spent_budget(fake_provider: FakeProvider, gemini: Client) -> None:
    with farthing.budget(tokens=0):
        assert gemini.models.count_tokens(model=FLASH, contents="Hi there").total_tokens
        assert list(gemini.models.list())
    assert entries() == []


def test_what_has_no_meter_is_refused(fake_provider: FakeProvider, gemini: Client) -> None:
    with farthing.budget(tokens=1000):
        with pytest.raises(UnmeteredCall, match="run later"):
            gemini.batches.create(model=FLASH, src=[types.InlinedRequest(contents="Hi")])
        with pytest.raises(UnmeteredCall, match="storage"):
            gemini.caches.create(model=FLASH, config=types.CreateCachedContentConfig(contents="Hi"))
    assert fake_provider.posts == 0


def test_gemini_embeddings(fake_provider: FakeProvider, gemini: Client) -> None:
    with farthing.budget(tokens=100, usd=Decimal("0.01"), on_exceed="clamp", uncapped="reject") as budget:
        answer = gemini.models.embed_content(model="gemini-embedding-001", contents=["a farthing", "two"])
    assert len(answer.embeddings or []) == 2
    assert settled(fake_provider).tokens("output") == 0
    assert budget.spent.tokens == fake_provider.billed_tokens
    assert set(sent(fake_provider)) == {"requests"}


@pytest.mark.parametrize("how", ["broken off", "left"])
def test_a_cut_stream_costs_its_hold_where_thoughts_are_hidden(
    fake_provider: FakeProvider, gemini: Client, how: str
) -> None:
    fake_provider.reply = Reply(output_tokens=150, reasoning_tokens=50, cut_after_chunks=3)
    if how == "left":
        fake_provider.reply = Reply(output_tokens=150, reasoning_tokens=50, pause_after_chunks=3)
    with farthing.budget(tokens=1000) as budget:
        stream = gemini.models.generate_content_stream(model=FLASH, contents="Hi", config=asked(max_output_tokens=200))
        if how == "left":
            next(stream)
            stream.close()
        else:
            with pytest.raises(httpx2.TransportError):
                list(stream)
    (row,) = entries()
    fake_provider.wait_idle()
    assert (row.usage_source, row.tokens("output")) == ("estimate", 200)
    # The input was told by the chunks that came.
    assert row.tokens("input") == fake_provider.billed().input
    assert budget.spent.tokens >= fake_provider.billed_tokens


def test_without_alt_sse_the_array_is_relayed_as_it_comes(fake_provider: FakeProvider) -> None:
    fake_provider.reply = Reply(split_bytes=7)
    with httpx2.Client(timeout=60) as http:
        farthing.instrument(http)
        url = f"{fake_provider.gemini_url}/v1beta/models/{FLASH}:streamGenerateContent"
        body = {"contents": [{"parts": [{"text": "Hi there"}]}], "generationConfig": {"maxOutputTokens": 50}}
        with farthing.budget(tokens=1000) as budget, http.stream("POST", url, json=body) as answer:
            pieces = list(answer.iter_bytes())
        chunks = json.loads(b"".join(pieces))
    assert len(pieces) > 10
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    settled(fake_provider)
    assert budget.held == NOTHING


def test_async_content(fake_provider: FakeProvider) -> None:
    async def main() -> str:
        async with httpx2.AsyncClient(timeout=60) as http:
            options = types.HttpOptions(base_url=fake_provider.gemini_url, httpx_async_client=http)
            client = farthing.instrument(Client(api_key="fake", http_options=options))
            stream = await client.aio.models.generate_content_stream(model=FLASH, contents="Hi there")
            return "".join([chunk.text or "" async for chunk in stream])

    with farthing.budget(tokens=100_000) as budget:
        assert len(asyncio.run(main()).split()) == 10
    settled(fake_provider)
    assert budget.spent.tokens == fake_provider.billed_tokens


def test_a_crossing_answer_is_on_the_exception(fake_provider: FakeProvider, gemini: Client) -> None:
    with farthing.budget(tokens=5, on_exceed="raise"), pytest.raises(farthing.BudgetExceeded) as caught:
        gemini.models.generate_content(model=FLASH, contents="Hi there")
    assert isinstance(caught.value.result, types.GenerateContentResponse)
    settled(fake_provider)
