"""
A function of your own: it is given the decision before anything is sent, and may allow the call on other terms.

Output::

    asked: 1,011 tokens, 400 remain
    allowed: gpt-4o-mini, at most 100 tokens
    asked: 1,011 tokens, 289 remain
    refused by my own rule: less than 300 tokens remain
"""

from openai import OpenAI

from farthing import Allow, Decision, budget, instrument
from farthing.testing import FakeProvider, Reply


class NotNow(Exception):
    pass


def decide(decision: Decision) -> Allow:
    print(f"asked: {decision.asked:,} tokens, {decision.remaining} remain")
    if decision.remaining < 300:
        raise NotNow("less than 300 tokens remain")
    return Allow(model="gpt-4o-mini", max_output_tokens=100)


with FakeProvider(Reply(output_tokens=100_000)) as provider, budget(tokens=400, on_exceed=decide):
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))
    messages = [{"role": "user", "content": "Tell me more."}]
    try:
        while True:
            client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=1_000)
            sent = provider.requests[-1].json
            print(f"allowed: {sent['model']}, at most {sent['max_tokens']} tokens")
    except NotNow as reason:
        print("refused by my own rule:", reason)
