"""
A first budget: a function that may use 300 tokens each time it is called, and not one more.

Every call of the function is a unit of work of its own and starts fresh: this budget has no name.

Output::

    27 tokens: a small coin is still money and every one of
    refused: budget 'summarise()': limit 300 tokens, spent 0 tokens, held 0 tokens, asked 511 tokens; 300 tokens …
    sent to the provider: 1
"""

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider

with FakeProvider() as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))  # in earnest: instrument(OpenAI())

    @budget(tokens=300)
    def summarise(text: str, *, most: int) -> str:
        messages = [{"role": "user", "content": text}]
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=most)
        return f"{answer.usage.total_tokens} tokens: {answer.choices[0].message.content}"

    print(summarise("A farthing was a quarter of a penny.", most=100))
    try:
        summarise("Tell me all.", most=500)
    except BudgetExceeded as refused:
        print("refused:", refused)
    print("sent to the provider:", provider.posts)
