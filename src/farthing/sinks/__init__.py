"""
Sinks: where else each call is written, beside the ledger.

The ledger is written first, and is what budgets go by. A sink has a copy: each has a bounded queue and a thread of its
own, so a slow one delays no call, one that fails reaches no caller, and what it could not keep up with is counted.
"""

from .jsonl import JSONLSink
from .otel import OTelSink
from .queued import QueueSink
from .sqlite import SQLiteSink
from .subscription import Sink, Subscription
from .use import flush, use_sink

__all__ = ["JSONLSink", "OTelSink", "QueueSink", "SQLiteSink", "Sink", "Subscription", "flush", "use_sink"]
