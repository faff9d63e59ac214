"""
Wait: rather than refuse a call, let it stand in line until something comes back.

Eight threads share a budget with room for two calls at a time. Each holds the most that its call can use and gives
back what it did not: so all eight fit in the end, and nobody is refused.

Output::

    8 answers, each held 101 of 300 tokens; 136 spent in the end
    a call that can never fit is refused at once: it asks for 1010 tokens
"""

from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(output_tokens=7, latency_seconds=0.02)) as provider, ThreadPoolExecutor(8) as pool:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    def ask(ceiling: int = 91) -> str:
        messages = [{"role": "user", "content": "Any news?"}]
        return client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=ceiling).id

    with budget(tokens=300, on_exceed="wait", wait_seconds=60) as purse:
        answers = list(pool.map(lambda _: ask(), range(8)))
        print(f"{len(answers)} answers, each held 101 of 300 tokens; {purse.spent.tokens} spent in the end")
        try:
            ask(1_000)
        except BudgetExceeded as no:
            print(f"a call that can never fit is refused at once: it asks for {no.asked} tokens")
