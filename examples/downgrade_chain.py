"""
A chain of downgrades: each model of the map stands in for a dearer one, and the last has nobody below it.

Output::

    gpt-4o        $0.0013575 left
    gpt-4.1-mini  $0.0005507 left
    gpt-4.1-nano  $0.000349 left
    gpt-4.1-nano  $0.0001473 left
    refused       $0.0001473 left
"""

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

CHEAPER = {"gpt-4o": "gpt-4.1-mini", "gpt-4.1-mini": "gpt-4.1-nano"}

with FakeProvider(Reply(output_tokens=500)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    with budget(usd=0.0064, on_exceed="downgrade", downgrade=CHEAPER) as purse:
        for _ in range(5):
            try:
                messages = [{"role": "user", "content": "Who struck the last farthing, and when?"}]
                answer = client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=500)
                print(f"{answer.model:<13} ${purse.remaining.usd} left")
            except BudgetExceeded:
                print(f"{'refused':<13} ${purse.remaining.usd} left")
