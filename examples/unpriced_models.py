"""
A model whose price nobody knows is never free: a budget in USD refuses it, unless you say what to assume.

Output::

    reject           budget 'unnamed ($1.00)' counts USD, and no price is known for model 'in-house-7' (openai)…
    price_as:gpt-4o  spent 108 tokens, $0.00102
    tokens_only      spent 108 tokens, $0
"""

import warnings

from openai import OpenAI

from farthing import UnpricedModel, UnpricedModelWarning, budget, configure, instrument
from farthing.testing import FakeProvider, Reply

warnings.simplefilter("ignore", UnpricedModelWarning)  # said once per model

with FakeProvider(Reply(output_tokens=100)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    for policy in ["reject", "price_as:gpt-4o", "tokens_only"]:
        configure(unpriced=policy)
        with budget(usd=1) as purse:
            try:
                messages = [{"role": "user", "content": "Hi"}]
                client.chat.completions.create(model="in-house-7", messages=messages, max_tokens=100)
                print(f"{policy:<16} spent {purse.spent.tokens} tokens, ${purse.spent.usd}")
            except UnpricedModel as error:
                print(f"{policy:<16} {str(error)[:90]}…")
