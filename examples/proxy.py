"""
The proxy: a budget in front of an API, for programs in any language, with no change to their code.

A proxy is started in this process; `farthing serve` does the same in a process of its own. The program below knows
nothing of farthing: only its base URL is another.

Output::

    Hello from the provider. ($0.000012)
    refused, once: budget_exceeded, 42 tokens remain
    2 requests, 1 blocked, 1 reached the provider
"""

import logging

from openai import OpenAI, RateLimitError

from farthing import BudgetConfig, start_proxy
from farthing.testing import FakeProvider, Reply

logging.getLogger("farthing").addHandler(logging.NullHandler())


def program(base_url: str) -> None:
    client = OpenAI(base_url=base_url, api_key="sk-its-own")
    hello = [{"role": "user", "content": "Hello"}]
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=hello, max_completion_tokens=50
    )
    print(raw.parse().choices[0].message.content, f"(${raw.headers['x-farthing-cost-usd']})")
    try:
        client.chat.completions.create(model="gpt-4o-mini", messages=hello, max_completion_tokens=50)
    except RateLimitError as refused:
        print(f"refused, once: {refused.code}, {refused.body['farthing']['remaining']} tokens remain")


with FakeProvider(Reply("Hello from the provider.", output_tokens=18)) as provider:
    config = BudgetConfig(max_tokens_total=68, upstream_url=provider.openai_url)
    with start_proxy(config, port=0, block=False) as proxy:
        program(f"{proxy.url}/v1")
        stats = proxy.stats
    print(f"{stats['requests']} requests, {stats['blocked']} blocked, {provider.posts} reached the provider")
