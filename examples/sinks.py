"""
Sinks: each call is also written where you want it, after the ledger. One that fails reaches no caller.

Output::

    3 calls, $0.0001836
    calls.jsonl: 3 lines
    calls.db: [('search', 2), ('support', 1)]
    the failing one missed 3 rows
"""

import logging
import sqlite3
from pathlib import Path

from openai import OpenAI

from farthing import instrument, report, sinks, track, use_sink
from farthing.testing import FakeProvider, Reply

logging.getLogger("farthing").setLevel(logging.CRITICAL)  # it says once that the sink below fails


def full(row):
    raise OSError("No space left on device")


use_sink(sinks.JSONLSink("calls.jsonl"))
use_sink(sinks.SQLiteSink("calls.db"))
failing = use_sink(full)

with FakeProvider(Reply(output_tokens=100)) as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))
    for feature in ("search", "support", "search"):
        with track(feature=feature):
            messages = [{"role": "user", "content": "Hello"}]
            client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=100)

sinks.flush()
print(f"{report().totals()['calls']} calls, ${report().total()}")
print("calls.jsonl:", len(Path("calls.jsonl").read_text().splitlines()), "lines")
by_feature = "SELECT json_extract(tags, '$.feature'), count(*) FROM calls GROUP BY 1 ORDER BY 1"
print("calls.db:", sqlite3.connect("calls.db").execute(by_feature).fetchall())
print("the failing one missed", failing.failed, "rows")
