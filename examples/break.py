"""
Break: end a stream when its budget is used up, in good order, and keep what was delivered.

As with clamp, the ceiling on the wire is what fits. This provider does not keep to it, as some compatible servers do
not. So farthing counts along, hangs up 64 tokens before the end (what a provider may still bill after that), and ends
the stream as the provider would have: the loop ends by itself, with finish_reason "length".

Output::

    asked for at most 500 tokens: 436 arrived, finish_reason length
    spent 511, and the provider billed 511 of 511
"""

from openai import OpenAI

from farthing import budget, instrument
from farthing.testing import FakeProvider, Reply

endless = Reply(output_tokens=100_000, keeps_ceiling=False, pause_after_chunks=436)

with FakeProvider(endless) as provider, budget(tokens=511, on_exceed="break") as purse:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))
    stream = client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Tell me everything."}], stream=True
    )
    words = 0
    for chunk in stream:
        words += bool(chunk.choices[0].delta.content)
        ended = chunk.choices[0].finish_reason
    asked = provider.requests[-1].json["max_completion_tokens"]
    print(f"asked for at most {asked} tokens: {words} arrived, finish_reason {ended}")
    provider.wait_idle()
    print(f"spent {purse.spent.tokens}, and the provider billed {provider.billed_tokens} of 511")
