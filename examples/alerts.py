"""
Alerts: each threshold of a limit is said once, in the log and to whoever listens.

Output::

    alert 0.5: budget 'search': 50 % of its limit is spent: 216 tokens of 300 tokens.
    alert 1: budget 'search': it denies calls that do not fit any more: 216 tokens of 300 tokens.
"""

import logging

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument, use_sink
from farthing.testing import FakeProvider, Reply

logging.getLogger("farthing").setLevel(logging.ERROR)  # it says the same
heard = []
told = use_sink(events=heard.append)

with FakeProvider(Reply(output_tokens=100)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    with budget("search", tokens=300, alerts=[0.5, 1.0]):
        for _ in range(3):
            try:
                messages = [{"role": "user", "content": "Hello"}]
                client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=100)
            except BudgetExceeded:
                break

told.close()
for event in heard:
    if event.action == "alert":
        print(f"alert {event.threshold}: {event.reason}")
