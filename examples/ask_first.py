"""
Ask before calling: what is left, whether a request would pass, and what a call cost. Any HTTP client may, with its key.

Output::

    left: 1000 tokens
    2000 tokens of output would pass: False (budget 'alice per day', asked 2014)
    500 tokens of output would pass: True
    the call cost $0.0000321 for 14 + 50 tokens
    left: 936 tokens
"""

import json
import tempfile
from urllib.request import Request, urlopen

from farthing import BudgetConfig, start_proxy
from farthing.admin.keys import create_key
from farthing.stores import open_store
from farthing.testing import FakeProvider, Reply

ledger = f"sqlite:///{tempfile.mkdtemp()}/ledger.db"
key = create_key(open_store(ledger), user="alice", budgets=["1k tokens/day"]).text
chat = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is left in the purse?"}]}
CHAT = "/v1/chat/completions"

with FakeProvider(Reply(output_tokens=50)) as provider:
    upstream = {"upstream_url": provider.openai_url, "upstream_api_key": "fake"}
    limits = BudgetConfig(max_tokens_per_request=None, ledger=ledger, quiet=True, **upstream)
    with start_proxy(limits, port=0, block=False) as proxy:

        def ask(path: str, body: dict | None = None):
            data = None if body is None else json.dumps(body).encode()
            return urlopen(Request(proxy.url + path, data, {"Authorization": f"Bearer {key}"}))

        def left() -> str:
            (budget,) = json.load(ask("/v1/budgets/me"))["budgets"]
            return f"{budget['tokens']['remaining']} tokens"

        print("left:", left())
        for most in (2000, 500):
            told = json.load(ask(f"/v1/explain?route={CHAT}", {**chat, "max_completion_tokens": most}))
            no = told["decision"]
            why = "" if told["allowed"] else f" (budget {no['budget']!r}, asked {no['asked']})"
            print(f"{most} tokens of output would pass: {told['allowed']}{why}")
        answer = ask(CHAT, {**chat, "max_completion_tokens": 500})
        call = json.load(ask(f"/v1/calls/{answer.headers['x-farthing-call-id']}"))
        print(f"the call cost ${call['usd']} for {call['input_tokens']} + {call['output_tokens']} tokens")
        print("left:", left())
