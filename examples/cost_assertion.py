"""
Cost as a test assertion: a test that fails when a feature becomes dear.

Output::

    one search costs 0.00304
    AssertionError: 2 calls for feature=search cost $0.00608, more than $0.005
"""

from openai import OpenAI

from farthing import instrument, report, track
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(output_tokens=300)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    def search(words: str) -> str:
        with track(feature="search"):
            messages = [{"role": "user", "content": words}]
            return client.chat.completions.create(model="gpt-4o", messages=messages).choices[0].message.content

    search("farthing, 1860, bun head")
    report().assert_under(usd=0.01, feature="search")
    print("one search costs", report().total())

    search("farthing, 1860, old head")
    try:
        report().assert_under(usd=0.005, feature="search")
    except AssertionError as failure:
        print("AssertionError:", failure)
