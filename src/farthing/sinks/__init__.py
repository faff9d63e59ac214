"""
Sinks: where else each call is written, beside the ledger.

The ledger is written first, and is what budgets go by. A sink has a copy: each has a bounded queue and a thread of its
own, so a slow one delays no call, one that fails reaches no caller, and what it could not keep up with is counted.
"""

from .jsonl import JSONLSink as JSONLSink
from .otel import OTelSink as OTelSink
from .queued import QueueSink as QueueSink
from .sqlite import SQLiteSink as SQLiteSink
from .subscription import Sink as Sink
from .subscription import Subscription as Subscription
from .use import flush as flush
from .use import use_sink as use_sink
