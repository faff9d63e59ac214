"""
An agent loop that swallows every error makes no further paid call: a refused call never leaves, and is not retried.

Output::

    requests that reached the provider: 4
    budget      usd  tokens  input  output  calls  denied
    agent   $0.0081     840     40     800      4      96
"""

from openai import OpenAI

from farthing import budget, instrument, report
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(output_tokens=200)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    @budget("agent", usd=0.01, description="the night agent")
    def agent() -> None:
        for _ in range(100):
            try:
                messages = [{"role": "user", "content": "What next?"}]
                client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=200)
            except Exception:  # noqa: BLE001 - the loop that everybody has somewhere
                continue

    agent()
    print("requests that reached the provider:", provider.posts)
    print(report(group_by="budget"))
