"""
Calls that farthing does not see: hold by hand, settle with the usage you were told, or record what was paid elsewhere.

Leaving ``with hold(...)`` without a word settles at what was held, on an exception too: nothing is forgotten.

Output::

    held    3000 tokens, at most 0.0018 USD
    settled 1150 tokens, 0.000255 USD
    voided  1150 tokens
    recorded 9650 tokens, 350 remain
    refused: 350 tokens remain of 10000
"""

from farthing import BudgetExceeded, budget, hold, record

with budget("batch", tokens=10_000, usd=0.05) as batch:
    with hold(tokens=3_000, model="gpt-4o-mini") as call:
        print("held   ", batch.held.tokens, "tokens, at most", batch.held.usd, "USD")
        call.settle({"input_tokens": 900, "cached_tokens": 400, "output_tokens": 250})  # as the provider reports it
    print("settled", batch.spent.tokens, "tokens,", batch.spent.usd, "USD")

    with hold(tokens=2_000, model="gpt-4o-mini") as call:
        call.void()  # it certainly cost nothing: never sent, or refused
    print("voided ", batch.spent.tokens, "tokens")

    record({"input_tokens": 8_000, "output_tokens": 500}, model="gpt-4o-mini", job="night")
    print("recorded", batch.spent.tokens, "tokens,", batch.remaining.tokens, "remain")
    try:
        with hold(tokens=1_000, model="gpt-4o-mini"):
            pass
    except BudgetExceeded as no:
        print("refused:", no.remaining, "tokens remain of", no.limit)
