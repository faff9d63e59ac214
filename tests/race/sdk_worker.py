"""
A program with a budget on a shared ledger, run by the tests as a process of its own: threads that make calls.

It says "ready", waits for a word, and at its end says how many calls were admitted.
"""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection
from typing import Any

import farthing
from tests.doors.clients import HI, openai_client

# Read once by the server that the processes come from: the price table and the vocabulary take most of a second.
farthing.prices.explain("gpt-4o")
farthing.tokens.count("hi", "gpt-4o")


def main(pipe: Connection[Any, Any], ledger: str, url: str, limits: dict[str, Any], threads: int, calls: int) -> None:
    """Makes the calls, and closes the ledger: a process of multiprocessing ends without what atexit was given."""
    farthing.configure(ledger=ledger)
    admitted: list[int] = []

    def run() -> None:
        for _ in range(calls):
            try:
                client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=10)
            except farthing.BudgetExceeded:
                continue
            admitted.append(1)

    with openai_client(url) as client, farthing.budget("shared", **limits):
        pipe.send("ready")
        pipe.recv()
        workers = [threading.Thread(target=run) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    farthing.reset()
    pipe.send(len(admitted))
