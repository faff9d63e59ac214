"""
Clamp: rather than refuse a call, lower its output ceiling to what the budget still allows.

Three calls ask for 400 tokens each. The second is sent with a smaller ``max_completion_tokens``, the third does not
leave at all: less than ``min_output_tokens`` would be left of it.

Output::

    asked for 400, sent with 400, finish_reason length
    asked for 400, sent with 168, finish_reason length
    refused: 0 tokens remain
"""

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(output_tokens=100_000)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    with budget(tokens=600, on_exceed="clamp", min_output_tokens=50):
        for _ in range(3):
            try:
                answer = client.chat.completions.create(
                    model="gpt-4o-mini",
                    messages=[{"role": "user", "content": "Go on for as long as you may."}],
                    max_completion_tokens=400,
                )
            except BudgetExceeded as no:
                print(f"refused: {no.remaining} tokens remain")
            else:
                sent = provider.requests[-1].json["max_completion_tokens"]
                print(f"asked for 400, sent with {sent}, finish_reason {answer.choices[0].finish_reason}")
