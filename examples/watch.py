"""
Watch: send a request without an output ceiling as it is, and end its stream when what was held for it is used up.

By default a request that sets no ceiling is given one. Some servers refuse that field, or answer otherwise because of
it: uncapped="watch" leaves the request alone.

Output::

    the request had no ceiling: True
    136 tokens arrived, finish_reason length, spent 212
    an answer that ends in time: stop, spent 14 more
"""

from openai import OpenAI

from farthing import budget, instrument
from farthing.testing import FakeProvider, Reply

ask = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What is it worth?"}], "stream": True}

with FakeProvider(max_output_tokens=100_000) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))
    provider.script([Reply(output_tokens=100_000, pause_after_chunks=136), Reply("One.")])

    with budget(tokens=10_000, uncapped="watch", default_output_tokens=200) as purse:
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**ask)]
        print("the request had no ceiling:", "max_completion_tokens" not in provider.requests[-1].json)
        words = sum(1 for chunk in chunks if chunk.delta.content)
        before = purse.spent.tokens
        print(f"{words} tokens arrived, finish_reason {chunks[-1].finish_reason}, spent {before}")

        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**ask)]
        print(f"an answer that ends in time: {chunks[-1].finish_reason}, spent {purse.spent.tokens - before} more")
