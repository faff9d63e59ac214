"""
How many calls at once: ``concurrency`` counts calls in flight, and ``requests`` counts calls.

A slot is a hold like any other: it comes back when its call ends, in whatever way.

Output::

    a fourth: Wait until a call in flight ends, or raise the limit.
    the three: ['paid', 'paid', 'paid']
    a fifth: paid
"""

from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(pause_after_chunks=0)) as provider, ThreadPoolExecutor(10) as pool:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    def ask(number: int) -> str:
        messages = [{"role": "user", "content": f"Question {number}"}]
        try:
            client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=50)
        except BudgetExceeded as no:
            return no.remedy
        return "paid"

    with budget("gate", concurrency=3):
        first = [pool.submit(ask, number) for number in range(3)]
        provider.wait_in_flight(3)  # the provider keeps them waiting
        print("a fourth:", ask(4))
        provider.resume()
        print("the three:", [call.result() for call in first])
        provider.reply = Reply()
        print("a fifth:", ask(5))
