"""
What would it cost? An estimate makes no call and needs no client.

It is the most that the call can cost: the input counted, and all of the output that you would allow.

Output::

    15 tokens of input
    gpt-4o             $0.0050375
    gpt-4o-mini        $0.00030225
    claude-sonnet-4-6  $0.007566
    my-model: registered by you
      price of        registered/my-model
      input           $1.00 per 1M tokens
      cached          $1.00 per 1M tokens
      cache_write     $1.00 per 1M tokens
      cache_write_1h  $1.00 per 1M tokens
      output          $4.00 per 1M tokens
      source          registered my-model input=1 output=4 USD per 1M
"""

from farthing import estimate, prices, tokens

messages = [{"role": "user", "content": "Explain the farthing in one paragraph."}]

print(tokens.count(messages, "gpt-4o"), "tokens of input")
for model in ["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-6"]:
    print(f"{model:<18} ${estimate(model, messages, max_output_tokens=500)}")
prices.register("my-model", input=1, output=4)  # USD per million tokens
print(prices.explain("my-model"))
