"""
A budget around a generator covers its body, step by step; the code between two steps is outside of it.

The same decorator is for plain functions, async functions, generators and async generators.

Output::

    A chapter. A chapter.
    a letter, outside of the budget: A chapter.
    no third chapter: 224 tokens spent of 250
"""

from collections.abc import Iterator

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply("A chapter.", output_tokens=100)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    def write(prompt: str) -> str:
        answer = client.responses.create(model="gpt-4o-mini", input=prompt, max_output_tokens=100)
        return answer.output_text

    @budget(tokens=250)
    def book() -> Iterator[str]:
        while True:
            yield write("Write the next chapter.")

    chapters = book()
    print(next(chapters), next(chapters))
    print("a letter, outside of the budget:", write("Write a letter."))
    try:
        next(chapters)
    except BudgetExceeded as no:
        print(f"no third chapter: {no.spent} tokens spent of {no.limit}")
