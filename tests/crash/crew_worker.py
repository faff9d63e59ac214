"""
A worker of somebody else's crew, run by the tests as a process of its own: the SDK as it comes, the address of a proxy
and a key are all that it has. It knows nothing of budgets, and calls until it is refused.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

import openai

from tests.doors.clients import HI, openai_client

MODEL = "gpt-4o-mini"
CEILING = 50


def main(pipe: Connection[Any, Any], url: str, key: str) -> None:
    """Says "ready", waits for a word, and says at its end how many calls it was allowed."""
    admitted = 0
    with openai_client(url, governed=False, api_key=key) as client:
        pipe.send("ready")
        pipe.recv()
        while True:
            try:
                client.chat.completions.create(model=MODEL, messages=HI, max_completion_tokens=CEILING)
            except openai.RateLimitError:
                break
            admitted += 1
    pipe.send(admitted)
