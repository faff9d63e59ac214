"""
Streams belong to the budget they were started in, however late they are read, and also if they are left half-way.

Each of ten streams holds its most before it starts, so money for six starts six. Here the provider pauses after 20
tokens: one stream is closed there and counts what came, with a margin for what was on its way. The rest are read to
their end after the ``with`` is over.

Output::

    6 streams started: 648 tokens held, 52 remain
    one closed half-way: 92 tokens spent
    five read to their end: 632 tokens spent, 0 held
"""

from itertools import islice

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(output_tokens=100, pause_after_chunks=20)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))
    ask = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100, "stream": True}

    streams = []
    with budget(tokens=700) as purse:
        for _ in range(10):
            try:
                streams.append(client.chat.completions.create(**ask))
            except BudgetExceeded:
                pass
    print(f"{len(streams)} streams started: {purse.held.tokens} tokens held, {purse.remaining.tokens} remain")

    list(islice(streams[0], 21))  # one that opens the answer, then 20 tokens
    streams[0].close()
    print(f"one closed half-way: {purse.spent.tokens} tokens spent")
    provider.resume()
    for stream in streams[1:]:
        list(stream)
    print(f"five read to their end: {purse.spent.tokens} tokens spent, {purse.held.tokens} held")
