"""
Your own prices: for a fine-tune, a model of your own, or terms that you negotiated. They stand above the table.

Output::

    our-llama-70b  $0.00015  (registered)
    gpt-4o         $0.006  (registered)
"""

from openai import OpenAI

from farthing import budget, instrument, prices
from farthing.testing import FakeProvider, Reply

prices.register("our-llama-*", input=0.05, output=0.20)  # USD per million tokens
prices.register("gpt-4o", input=2.00, output=8.00, cached=0.50)

with FakeProvider(Reply(input_tokens=1_000, output_tokens=500)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))
    for model in ["our-llama-70b", "gpt-4o"]:
        with budget(usd=1) as purse:
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=500)
        print(f"{model:<14} ${purse.spent.usd}  ({prices.explain(model).how})")
