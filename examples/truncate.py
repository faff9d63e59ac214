"""
Truncate: when the budget is used up, end the `with` or the function quietly. What was done so far stands.

Output::

    page 1: a farthing
    page 2: a farthing
    after the with: 2 pages
    a function that is cut short returns None
"""

from openai import OpenAI

from farthing import budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply("a farthing")) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    def read(page: int) -> str:
        messages = [{"role": "user", "content": f"What is on page {page}?"}]
        answer = client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=20)
        return answer.choices[0].message.content

    pages = []
    with budget(tokens=60, on_exceed="truncate"):
        for page in range(1, 100):
            pages.append(read(page))
            print(f"page {page}: {pages[-1]}")
    print(f"after the with: {len(pages)} pages")

    @budget(tokens=20, on_exceed="truncate")
    def summary() -> str:
        return read(1)

    print("a function that is cut short returns", summary())
