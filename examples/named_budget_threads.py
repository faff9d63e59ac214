"""
One named budget, shared by every thread that names it: a pool of fifty workers fires a hundred calls at $0.001.

A budget with a name is one account. Each call holds what it can cost at most before it leaves, so no two calls can
both spend the last of it. Here every answer uses all that it asked for, so exactly as many pass as the money is for.

Output::

    16 paid, 84 refused
    spent $0.0009912 of $0.001; the provider billed $0.0009912
"""

from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

search = budget("search", usd=0.001)

with FakeProvider(Reply(output_tokens=100)) as provider, ThreadPoolExecutor(50) as pool:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    def ask(question: str) -> str:
        try:
            with search:
                messages = [{"role": "user", "content": question}]
                client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=100)
        except BudgetExceeded:
            return "refused"
        return "paid"

    outcomes = list(pool.map(ask, ["What is a groat?"] * 100))
    billed = provider.billed_usd({"gpt-4o-mini": ("0.15", "0.60")})

print(f"{outcomes.count('paid')} paid, {outcomes.count('refused')} refused")
print(f"spent ${search.spent.usd} of $0.001; the provider billed ${billed}")
