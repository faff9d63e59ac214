"""
Shadow mode: ``on_exceed="warn"`` never objects. It counts what it would have denied, so that you can choose a limit
before you enforce it.

Output::

    5 calls went out, 0 denied, 3 would have been
    spent 540 of 300 tokens
"""

import logging

from openai import OpenAI

from farthing import budget, instrument, report
from farthing.testing import FakeProvider, Reply

logging.getLogger("farthing").setLevel(logging.ERROR)  # it also logs a warning each time: too much for this page

with FakeProvider(Reply(output_tokens=100)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    with budget("search", tokens=300, on_exceed="warn") as search:
        for _ in range(5):
            messages = [{"role": "user", "content": "Hello"}]
            client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=100)

totals = report().totals()
print(f"{totals['calls']} calls went out, {totals['denied']} denied, {totals['shadow_denied']} would have been")
print(f"spent {search.spent.tokens} of 300 tokens")
