"""
Where the money went: tag calls with ``track``, then group the report by your tags, or by model, day, budget.

Tags need no budget. They nest, and follow threads and tasks.

Output::

    feature  user          usd  tokens  input  output  calls  denied
    support  alice    $0.00203     212     12     200      1       0
    support  bob      $0.00203     212     12     200      1       0
    search   alice  $0.0001218     212     12     200      1       0
    total           $0.0041818     636     36     600      3       0
    gpt-4o 0.00406 2
    gpt-4o-mini 0.0001218 1
"""

from openai import OpenAI

from farthing import instrument, report, track
from farthing.testing import FakeProvider, Reply

with FakeProvider(Reply(output_tokens=200)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    def ask(model: str) -> None:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Where is my order?"}])

    with track(feature="support"):
        for user in ["alice", "bob"]:
            with track(user=user):
                ask("gpt-4o")
    with track(feature="search", user="alice"):
        ask("gpt-4o-mini")

print(report(group_by=["feature", "user"]))
for row in report(group_by="model"):
    print(row["tags"]["model"], row["usd"], row["calls"])
