"""
A response that is made in the background: counted at its hold until it is asked for, then at what it cost. The next
request goes on from it, and holds no more than it can bring in.

Output::

    queued: 0 spent, held back for it: True
    completed: 308 spent, 0 held back
    going on: held 336 tokens at most, spent 618 in all
"""

from openai import OpenAI

from farthing import budget, instrument
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(output_tokens=300, background_polls=1)) as provider, budget("jobs", tokens=500_000) as jobs:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    job = client.responses.create(model="gpt-4o", input="Hi", max_output_tokens=400, background=True)
    print(f"{job.status}: {jobs.spent.tokens} spent, held back for it: {jobs.suspect.tokens > 400}")

    while (job := client.responses.retrieve(job.id)).status != "completed":
        pass
    print(f"{job.status}: {jobs.spent.tokens} spent, {jobs.suspect.tokens} held back")

    provider.reply = Reply(input_tokens=300, output_tokens=10)
    ask = {"model": "gpt-4o", "input": "More", "max_output_tokens": 20, "previous_response_id": job.id}
    with budget(tokens=1_000) as one, client.responses.create(**ask, stream=True) as stream:
        print(f"going on: held {one.held.tokens} tokens at most,", end=" ")
        list(stream)
    print(f"spent {jobs.spent.tokens} in all")
