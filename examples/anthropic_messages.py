"""
The same with the anthropic package: typed objects, stream helpers, and its own base error.

Denials are also of the SDK's own error family, so ``except AnthropicError`` catches them, and no retry is made.

Output::

    A penny saved is a penny earned.
    A penny saved is a penny earned.
    spent $0.000306
    True usd 0.04506 asked, 0.009694 remain
    requests that reached the provider: 2
"""

from anthropic import Anthropic, AnthropicError

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply("A penny saved is a penny earned.")) as provider:
    client = instrument(Anthropic(base_url=provider.anthropic_url, api_key="offline"))
    messages = [{"role": "user", "content": "Say something wise."}]

    with budget(usd=0.01) as purse:
        answer = client.messages.create(model="claude-sonnet-4-6", max_tokens=300, messages=messages)
        print(answer.content[0].text)
        with client.messages.stream(model="claude-sonnet-4-6", max_tokens=300, messages=messages) as stream:
            print("".join(stream.text_stream))
        print(f"spent ${purse.spent.usd}")
        try:
            client.messages.create(model="claude-sonnet-4-6", max_tokens=3_000, messages=messages)
        except AnthropicError as error:
            print(isinstance(error, BudgetExceeded), error.unit, error.asked, "asked,", error.remaining, "remain")
    print("requests that reached the provider:", provider.posts)
