"""
An account for each user: ``each=["user"]`` splits one budget by the value of a tag.

Alice uses her own account up; Bob's is untouched. Calls without a user share the account of "absent": nobody slips
through by not saying who they are.

Output::

    alice: paid
    alice: budget 'each-user' for user=alice: 22 tokens remain
    bob: paid
    nobody: paid
    nobody: budget 'each-user': 22 tokens remain
"""

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument, track
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(output_tokens=50)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    @budget("each-user", tokens=80, each=["user"])
    def ask() -> str:
        messages = [{"role": "user", "content": "Hi"}]
        client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=50)
        return "paid"

    for user in ["alice", "alice", "bob", None, None]:
        try:
            with track(**({"user": user} if user else {})):
                print(f"{user or 'nobody'}: {ask()}")
        except BudgetExceeded as no:
            of = "".join(f" for {tag}={value}" for tag, value in no.scope.items())
            print(f"{user or 'nobody'}: budget {no.budget!r}{of}: {no.remaining} tokens remain")
