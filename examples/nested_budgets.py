"""
Budgets nest: a call holds on all of them, or on none. An inner budget that is generous widens nothing.

The denial lists every limit that the call would have passed, the tightest first.

Output::

    paid · paid · refused by 'team' (34 left)
    refused by 'tiny' (20 left), 'team' (34 left)
    the team has spent 216 tokens in 2 calls
"""

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(output_tokens=100)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    def ask(most: int) -> str:
        try:
            messages = [{"role": "user", "content": "Hi"}]
            client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=most)
        except BudgetExceeded as no:
            return "refused by " + ", ".join(f"{line.budget!r} ({line.remaining} left)" for line in no.failed)
        return "paid"

    with budget("team", tokens=250) as team, budget("run", requests=5):
        with budget("step", tokens=100_000, on_exceed="clamp"):
            print(ask(100), "·", ask(100), "·", ask(100))
        with budget("tiny", tokens=20):
            print(ask(100))
    print(f"the team has spent {team.spent.tokens} tokens in {provider.calls} calls")
