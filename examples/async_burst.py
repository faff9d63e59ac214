"""
A burst of a thousand tasks on one small budget, with the async client.

Budgets follow asyncio tasks. What the fake provider billed is never more than the limit, at any number of tasks.

Output::

    46 of 1,000 calls were paid, 4968 of 5,000 tokens spent
    the provider billed 4968 tokens for 46 calls
"""

import asyncio

from openai import AsyncOpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply


async def main(provider: FakeProvider) -> None:
    client = instrument(AsyncOpenAI(base_url=provider.openai_url, api_key="offline"))

    async def ask() -> bool:
        try:
            await client.responses.create(model="gpt-4o-mini", input="Hi", max_output_tokens=100)
        except BudgetExceeded:
            return False
        return True

    async with budget(tokens=5_000) as purse, client:
        paid = sum(await asyncio.gather(*(ask() for _ in range(1_000))))
    print(f"{paid} of 1,000 calls were paid, {purse.spent.tokens} of 5,000 tokens spent")
    print(f"the provider billed {provider.billed_tokens} tokens for {provider.calls} calls")


with FakeProvider(Reply(output_tokens=100)) as fake:
    asyncio.run(main(fake))
