"""
``kill -9`` in the middle of a call: nothing is lost, and nothing is spent twice.

What was held stays counted as *suspect*: it may have been billed, nobody knows. It is found as soon as another process
opens the ledger, and settles at what was held after a day, or when a person resolves it (``farthing holds resolve``).

Output::

    suspect: 108 tokens, so 892 remain of 1,000
    spent: 108 suspect: 108 remain: 784
    budget         usd  tokens  input  output  calls  denied
    agent   $0.0001224     216     16     200      2       0
"""

import os
import signal
import subprocess
import sys
import tempfile
import time

from openai import OpenAI

from farthing import budget, configure, instrument, report
from farthing.testing import FakeProvider, Reply

agent = budget("agent", tokens=1_000)


def call(url: str) -> None:
    client = instrument(OpenAI(base_url=url, api_key="offline"))
    with agent:
        client.responses.create(model="gpt-4o-mini", input="Hi", max_output_tokens=100)


if __name__ == "__main__" and sys.argv[1:]:
    call(sys.argv[1])  # the child; its ledger comes from FARTHING_LEDGER
elif __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, FakeProvider(Reply(pause_after_chunks=0)) as provider:
        url = f"sqlite:///{folder}/ledger.db"
        command = [sys.executable, __file__, provider.openai_url]
        child = subprocess.Popen(command, env={**os.environ, "FARTHING_LEDGER": url})
        provider.wait_in_flight(1, timeout=60)
        child.send_signal(signal.SIGKILL)
        child.wait()
        configure(ledger=url)
        while not agent.suspect.tokens:  # the sweep comes within five seconds
            time.sleep(0.1)
        print("suspect:", agent.suspect.tokens, "tokens, so", agent.remaining.tokens, "remain of 1,000")
        provider.reply = Reply(output_tokens=100)
        call(provider.openai_url)
        print("spent:", agent.spent.tokens, "suspect:", agent.suspect.tokens, "remain:", agent.remaining.tokens)
        print(report(group_by="budget", since="all"))
