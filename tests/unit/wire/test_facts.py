"""The facts of a request."""

from __future__ import annotations

import pytest

from farthing.wire import json
from farthing.wire.openai.chat import OpenAIChat

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


def test_a_changed_request_leaves_the_one_it_is_made_from() -> None:
    request = OpenAIChat().read_request(json.encode(CHAT), "/v1/chat/completions")
    other = request.but(model="gpt-4o-mini", overhead_tokens=request.overhead_tokens + 100)
    assert (request.model, other.model) == ("gpt-4o", "gpt-4o-mini")
    assert other.overhead_tokens == request.overhead_tokens + 100
    assert (other.text, other.output_ceiling) == (request.text, 5)


def test_no_fact_is_changed_by_a_name_that_is_none() -> None:
    request = OpenAIChat().read_request(json.encode(CHAT), "/v1/chat/completions")
    with pytest.raises(TypeError, match="overhead_token"):
        request.but(overhead_token=100)
