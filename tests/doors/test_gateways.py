"""A client whose base URL is some gateway's, with a path of its own, is governed and refused as any other."""

from __future__ import annotations

import pytest
from openai import NotFoundError, OpenAI

import farthing
from farthing.testing import FakeProvider
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
