"""
Raise: a guard against runaways that lets the crossing call finish, and hands you its answer.

The limit may be passed by that one call, so this is not a hard cap; from then on nothing leaves.

Output::

    answered: Once upon a time …
    raised: Once upon a time …
    raised: nothing was sent
    spent 204 tokens in 2 calls
"""

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply("Once upon a time …", output_tokens=90)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    with budget(tokens=150, on_exceed="raise") as purse:
        for _ in range(3):
            try:
                answer = client.responses.create(model="gpt-4o-mini", input="Tell me a story.")
                print("answered:", answer.output_text)
            except BudgetExceeded as crossed:
                print("raised:", crossed.result.output_text if crossed.result else "nothing was sent")
    print(f"spent {purse.spent.tokens} tokens in {provider.calls} calls")
