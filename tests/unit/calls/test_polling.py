"""Asking for a stored answer, step by step: as a stream, broken off, of somebody else, after another process."""

from __future__ import annotations

import json
from typing import Any

import pytest

import farthing
from farthing.calls.call import Call
from farthing.calls.polling import asks, poll
from farthing.calls.steps import Answered, Broken, Finished, NotSent, ReadAll, Relay, Send, advance
from farthing.runtime.ambient import current
from farthing.runtime.default import runtime
from farthing.testing import FakeProvider
from farthing.wire.recognise import DIALECTS
from tests.doors.clients import entries, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")

USAGE = {"input_tokens": 8, "output_tokens": 30, "total_tokens": 38}


@pytest.fixture
def queued(fake_provider: FakeProvider) -> str:
    """The id of a response that runs in the background."""
    with openai_client(fake_provider) as client, farthing.budget("jobs", tokens=500_000):
        made = client.responses.create(model="gpt-4o", input="hi", max_output_tokens=50, background=True)
    return made.id


def begin(*, stream: bool) -> Any:
    dialect = DIALECTS["openai.responses"]
    facts = asks(dialect, "/v1/responses/x?stream=true" if stream else "/v1/responses/x")
    call = Call(runtime(), dialect, facts, current(), "url", asks=True)
    life = poll(call)
    assert advance(life) == Send(None)
    return life


def frame(kind: str, response_id: str, **fields: Any) -> bytes:
    response = {"id": response_id, "model": "gpt-4o", "object": "response", "output": [], **fields}
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'response': response})}\n\n".encode()


def test_a_stream_is_relayed_as_it_is_and_settles_at_its_last_event(queued: str) -> None:
    life = begin(stream=True)
    assert advance(life, Answered(200, streamed=True)) == Relay(b"")
    first = frame("response.created", queued, status="in_progress")
    last = frame("response.completed", queued, status="completed", usage=USAGE)
    assert advance(life, first) == Relay(first)
    assert len(entries()) == 1
    assert advance(life, last) == Relay(last)
    assert dict(entries()[-1].usage)["output"] == 30 - 50  # a correction: what it came to, less what was held
    assert advance(life, None) == Finished()
    assert len(entries()) == 2


def test_one_that_is_broken_off_tells_nothing_and_another_may(queued: str) -> None:
    life = begin(stream=True)
    advance(life, Answered(200, streamed=True))
    advance(life, frame("response.created", queued, status="in_progress"))
    assert advance(life, error=Broken("client_gone")) == Finished()
    assert [entry.suspect for entry in entries()] == [True]
    life = begin(stream=False)
    assert advance(life, Answered(200, streamed=False)) == ReadAll()
    body = json.dumps({"id": queued, "status": "completed", "model": "gpt-4o", "output": [], "usage": USAGE})
    assert advance(life, body.encode()) == Finished()
    assert entries()[-1].resolves_suspect


@pytest.mark.parametrize("error", [NotSent("connect_error"), Broken("timeout")])
def test_a_question_that_was_not_answered_costs_nothing(queued: str, error: Exception) -> None:
    assert advance(begin(stream=False), error=error) == Finished()
    life = begin(stream=False)
    advance(life, Answered(200, streamed=False))
    assert advance(life, error=Broken("connection_lost")) == Finished()
    assert len(entries()) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"id": 5}', b'{"id": "resp_else", "status": "completed"}'])
def test_what_tells_of_no_call_of_ours_changes_nothing(queued: str, body: bytes) -> None:
    life = begin(stream=False)
    advance(life, Answered(200, streamed=False))
    assert advance(life, body) == Finished()
    assert len(entries()) == 1


def test_a_second_word_that_differs_is_not_taken(queued: str) -> None:
    for output in (30, 31):
        life = begin(stream=False)
        advance(life, Answered(200, streamed=False))
        usage = {**USAGE, "output_tokens": output, "total_tokens": 8 + output}
        answer = {"id": queued, "status": "completed", "model": "gpt-4o", "output": [], "usage": usage}
        assert advance(life, json.dumps(answer).encode()) == Finished()
    assert len(entries()) == 2
