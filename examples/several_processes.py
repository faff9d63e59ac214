"""
Four processes, one ledger file, one budget: together they never pass it.

Give ``configure`` a file, or set FARTHING_LEDGER, and a named budget is one account for everyone who names it there.

Output::

    the fleet spent 1944 of 2,000 tokens
    the provider billed 1944 tokens for 18 calls
"""

import multiprocessing
import tempfile
from pathlib import Path

from openai import OpenAI

from farthing import BudgetExceeded, budget, configure, instrument
from farthing.testing import FakeProvider, Reply


def work(url: str, ledger: str) -> None:
    configure(ledger=ledger)
    client = instrument(OpenAI(base_url=url, api_key="offline"))
    for _ in range(10):
        try:
            with budget("fleet", tokens=2_000, per="day"):
                client.responses.create(model="gpt-4o-mini", input="Hi", max_output_tokens=100)
        except BudgetExceeded:
            break


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, FakeProvider(Reply(output_tokens=100)) as provider:
        ledger = f"sqlite:///{Path(folder, 'ledger.db')}"
        start = multiprocessing.get_context("spawn").Process
        workers = [start(target=work, args=(provider.openai_url, ledger)) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        configure(ledger=ledger)
        print("the fleet spent", budget("fleet", tokens=2_000, per="day").spent.tokens, "of 2,000 tokens")
        print("the provider billed", provider.billed_tokens, "tokens for", provider.calls, "calls")
