"""
Virtual keys: each user of the proxy has one, and a budget; the provider's own key stays with the proxy.

Alice uses her budget up, Bob's is untouched. A revoked key opens nothing, and no key of ours reaches the provider.

Output::

    alice: 58 tokens
    alice: refused (budget 'alice per day', 12 of 70 tokens left)
    bob: 58 tokens
    bob: refused (revoked_key)
    the provider saw: ['Bearer sk-the-operators-own']
"""

import tempfile
import time

from openai import APIStatusError, OpenAI

from farthing import BudgetConfig, start_proxy
from farthing.admin.keys import create_key, revoke_key
from farthing.stores import open_store
from farthing.testing import FakeProvider, Reply

ledger = f"sqlite:///{tempfile.mkdtemp()}/ledger.db"
keys = open_store(ledger)
alice, bob = (create_key(keys, user=user, budgets=["70 tokens/day"]) for user in ("alice", "bob"))

with FakeProvider(Reply(output_tokens=50)) as provider:
    upstream = {"upstream_url": provider.openai_url, "upstream_api_key": "sk-the-operators-own"}
    with start_proxy(BudgetConfig(ledger=ledger, quiet=True, **upstream), port=0, block=False) as proxy:

        def ask(user: str, key: str) -> None:
            client = OpenAI(base_url=f"{proxy.url}/v1", api_key=key)
            messages = [{"role": "user", "content": "Hi"}]
            try:
                answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=50)
                print(f"{user}: {answer.usage.total_tokens} tokens")
            except APIStatusError as no:
                said, why = no.body["farthing"], no.code
                if why == "budget_exceeded":
                    why = f"budget {said['budget']!r}, {said['remaining']} of {said['limit']} tokens left"
                print(f"{user}: refused ({why})")

        ask("alice", alice.text)
        ask("alice", alice.text)
        ask("bob", bob.text)
        revoke_key(keys, bob.key.id)
        time.sleep(1)  # by then every worker of every proxy on this ledger knows
        ask("bob", bob.text)
    print("the provider saw:", sorted({request.headers["authorization"] for request in provider.requests}))
