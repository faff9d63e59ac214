"""
Downgrade: when the dear model no longer fits, take the cheaper one; when that does not fit either, refuse.

The map may be a chain. It is a hard budget like any other: the switch is made before the call leaves.

Output::

    gpt-4o        $0.0050425
    gpt-4o-mini   $0.00534505
    gpt-4o-mini   $0.0056476
    refused       $0.0056476
"""

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(output_tokens=500)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    with budget(usd=0.0058, on_exceed="downgrade", downgrade={"gpt-4o": "gpt-4o-mini"}) as purse:
        for _ in range(4):
            try:
                messages = [{"role": "user", "content": "Who struck the last farthing, and when?"}]
                answer = client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=500)
                print(f"{answer.model:<13} ${purse.spent.usd}")
            except BudgetExceeded:
                print(f"{'refused':<13} ${purse.spent.usd}")
