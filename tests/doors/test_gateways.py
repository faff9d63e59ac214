"""A client whose base URL is some gateway's, with a path of its own, is governed and refused as any other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import AzureOpenAI, NotFoundError, OpenAI

import farthing
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, entries

pytestmark = pytest.mark.usefixtures("farthing_isolated")


@pytest.mark.parametrize("path", ["/serving-endpoints", "/team/llm/", "/api/paas/v4"])
def test_any_base_url(path: str, fake_provider: FakeProvider) -> None:
    with OpenAI(base_url=fake_provider.url + path, api_key="fake", max_retries=0) as client:
        farthing.instrument(client)
        with farthing.budget(tokens=100) as purse:
            with pytest.raises(farthing.BudgetExceeded):
                client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=101)  # type: ignore[arg-type]
            with pytest.raises(farthing.UnmeteredCall):
                client.post("/anything/else", body={}, cast_to=object)
            assert (purse.held.tokens, entries(), fake_provider.posts) == (0, [], 0)


@pytest.mark.parametrize("path", ["/serving-endpoints", "/inference", "/api/paas/v4"])
def test_any_base_url_of_a_client_that_install_finds(path: str, fake_provider: FakeProvider) -> None:
    with (
        OpenAI(base_url=fake_provider.url + path, api_key="fake", max_retries=0) as client,
        farthing.budget(tokens=100),
    ):
        with pytest.warns(farthing.UngovernedClientWarning), pytest.raises(NotFoundError):
            client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=101)  # type: ignore[arg-type]
        farthing.install()
        with pytest.raises(farthing.BudgetExceeded):
            client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=101)  # type: ignore[arg-type]
        farthing.uninstall()
    assert (entries(), fake_provider.posts) == ([], 1)


CHEAP, DEAR = "meta-llama/llama-3.1-8b-instruct", "openai/gpt-4o"


@pytest.fixture
def router() -> Iterator[tuple[Any, FakeProvider]]:
    """A gateway that goes on to another model where the first fails, and bills what that one costs."""
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    usage = {"prompt_tokens": 1_000, "completion_tokens": 10, "total_tokens": 1_010}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "choices": [message], "usage": usage}
    with FakeProvider(Reply(body={**answer, "model": DEAR}), strict=False) as provider:
        farthing.install(hosts={urlsplit(provider.url).netloc: "openrouter"})
        with OpenAI(base_url=provider.openai_url, api_key="fake", max_retries=0) as client:
            yield client, provider
        farthing.uninstall()


def test_a_request_that_names_other_models_is_not_held_at_the_price_of_the_first(
    router: tuple[Any, FakeProvider],
) -> None:
    """A prompt too long for a cheap model went on to one a hundred times as dear, held and priced as the cheap one."""
    client, provider = router
    asked: Any = {"model": CHEAP, "messages": HI, "max_tokens": 20}
    with farthing.budget(usd=1), pytest.raises(farthing.UnmeteredCall, match="other models that may answer it"):
        client.chat.completions.create(**asked, extra_body={"models": [DEAR]})
    assert provider.posts == 0
    with farthing.budget(tokens=1_000_000), farthing.budget(usd=1, on_exceed="warn"):
        client.chat.completions.create(**asked, extra_body={"models": [DEAR]})
    with farthing.budget(usd=1, open_bound="overrun"):
        client.chat.completions.create(**asked, extra_body={"models": [CHEAP, DEAR]})
    with farthing.budget(usd=1):
        client.chat.completions.create(**asked, extra_body={"models": [CHEAP]})
    first, second, third = entries()
    assert first.cost_nano == second.cost_nano == 1_000 * 2_500 + 10 * 10_000
    assert third.cost_nano == 1_000 * 50 + 10 * 80, "the one that was asked for: its price was pinned"


def test_an_azure_deployment_names_the_model_of_a_request_that_names_none() -> None:
    """As LangChain's AzureChatOpenAI sends it: such calls were not metered, and refused under a hard budget."""
    with FakeProvider(Reply(output_tokens=10), strict=False) as provider:
        client = AzureOpenAI(
            azure_endpoint=provider.url, azure_deployment="gpt-4o", api_version="2024-10-21", api_key="k", max_retries=0
        )
        unnamed: Any = None
        with client, farthing.budget(usd=1):
            farthing.instrument(client)
            client.chat.completions.create(model=unnamed, messages=HI, max_tokens=10)  # type: ignore[arg-type]
            client.completions.create(model=unnamed, prompt="hi", max_tokens=10)
            client.embeddings.create(model=unnamed, input="hi")
        assert [row.facts.model for row in entries()] == ["gpt-4o"] * 3
        assert [request.json["model"] for request in provider.requests] == [None] * 3
