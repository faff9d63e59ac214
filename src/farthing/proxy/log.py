"""What the proxy says: a line per call or refusal, as text or as JSON. Never a credential, a query or a body."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from ..calls.call import Call
from ..calls.endings import Lost
from ..calls.steps import Broken, NotSent
from ..kernel.decision import Decision
from ..kernel.money import usd_decimal
from ..kernel.scope import one_line, printable_json

logger = logging.getLogger("farthing.proxy")
BLOCK = 35
"""Between WARNING and ERROR: a call was refused."""
logging.addLevelName(BLOCK, "BLOCK")


class Line:
    """One line: a sentence for people, fields for programs. Put together only if somebody reads it."""

    __slots__ = ("event", "fields", "sentence")

    def __init__(self, event: str, sentence: str, fields: Mapping[str, Any]) -> None:
        self.event = event
        self.sentence = sentence
        self.fields = fields

    def __str__(self) -> str:
        text = self.sentence
        for name, of in self.fields.items():
            if name not in _IN_SENTENCES and of is not None:
                text += f" {_SHOWN[name].format(of)}" if name in _SHOWN else f" {name}={of}"
        return one_line(text)


_IN_SENTENCES = frozenset({"method", "path", "prompt_tokens", "max_output_tokens"})
_SHOWN = {"held_tokens": "held={}t", "used_tokens": "used={}t", "cost_usd": "cost=${}"}
"""How fields stand behind a sentence in a line of text, if not as ``name=value``."""


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"[{record.levelname}] {one_line(record.getMessage())}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, Any] = {"at": at, "level": record.levelname.lower()}
        line = record.args[0] if isinstance(record.args, tuple) and record.args else None
        if isinstance(line, Line):
            said |= {"event": line.event, "message": line.sentence}
            said |= {name: value for name, value in line.fields.items() if value is not None}
        else:
            said |= {"event": record.name.rpartition(".")[2], "message": record.getMessage()}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return printable_json(_encode(said))


# Made once: json.dumps would make one for each line.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def to_stream(log_format: str, stream: TextIO | None = None) -> logging.Handler:
    """Send all that farthing and its server say to a stream (stderr), and nowhere else; returns the handler."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    for name, level in (("farthing", logging.INFO), ("uvicorn", logging.WARNING)):
        ours = logging.getLogger(name)
        ours.addHandler(handler)
        ours.setLevel(level)
        ours.propagate = False
    return handler


def change_format(log_format: str) -> None:
    """Go on in this format, where the log is one of ours."""
    for handler in logging.getLogger("farthing").handlers:
        if isinstance(handler.formatter, (_Text, _Json)):
            handler.setFormatter(_Json() if log_format == "json" else _Text())


def _say(level: int, line: Line) -> None:
    """As ``logger.log`` does, but nobody is interested in which line of this file it was."""
    if logger.isEnabledFor(level):
        logger.handle(logging.LogRecord(logger.name, level, "(unknown file)", 0, "%s", (line,), None))


def say_call(call: Call, path: str, status: int, upstream: str) -> None:
    """A call that went out, at its end."""
    if not logger.isEnabledFor(logging.INFO):
        return
    request, admitted, ending = call.request, call.admitted, call.ending
    held = x = None
    prompt = 0
    if admitted is not None and admitted.asked is not None and admitted.granted is not None:
        facts, x = admitted.asked.ask.facts, admitted.granted.x
        prompt = facts.input_tokens
        held = prompt + facts.choices * x
    outcome = None if ending is None or isinstance(ending, Lost) else ending.outcome
    most = x if x is not None else request.output_ceiling
    sentence = f"POST {path} —"
    if prompt:
        sentence += f" prompt={prompt}t"
    if most is not None:
        sentence += f" max_out={most}t"
    cost_nano = None if outcome is None else outcome.cost_nano
    fields = {
        "method": "POST",
        "path": path,
        "prompt_tokens": prompt or None,
        "max_output_tokens": most,
        "model": call.request.model if admitted is None else admitted.model,
        "status": status,
        "upstream": upstream,
        "held_tokens": held,
        "used_tokens": None if outcome is None else outcome.usage.total_tokens,
        "cost_usd": None if cost_nano is None else usd_decimal(cost_nano),
        "ending": None if ending is None else (ending.ending if isinstance(ending, Lost) else ending.outcome.ending),
        "ms": call.runtime.memory_store.now() - call.started_ms,
        "call": call.hold_id,
    }
    _say(logging.INFO, Line("call", sentence, fields))


def say_passed(method: str, path: str, status: int, upstream: str, reason: str) -> None:
    """A request that costs nothing, or that nothing here can measure (said louder)."""
    path = _short(path)
    fields = {"method": method, "path": path, "status": status, "upstream": upstream}
    _say(logging.INFO, Line("passed", f"{method} {path} — {reason}", fields))


def say_unmetered(method: str, path: str, upstream: str, reason: str) -> None:
    path = _short(path)
    sentence = f"{method} {path} — unmetered ({reason}): its cost is in no report"
    _say(logging.WARNING, Line("unmetered", sentence, {"method": method, "path": path, "upstream": upstream}))


def say_unreached(upstream: str, error: NotSent | Broken) -> None:
    """Why an upstream gave no answer, for whoever can mend that: its clients are told less."""
    if error.note:
        logger.warning("upstream %r gave no answer: %s", upstream, error.note)


def say_blocked(path: str, decision: Decision, model: str, *, message: str) -> None:
    """A call that a budget refused. *message* is the decision's."""
    fields = {"path": path, "model": model, "budget": decision.budget}
    _say(BLOCK, Line("block", f"{path} — {_why(decision, message)}", fields))


def say_refused(path: str, status: int, code: str, message: str) -> None:
    """A request that was refused for another reason."""
    path, message = _short(path), _short(message)
    _say(BLOCK, Line("refused", f"{path} — {message}", {"path": path, "status": status, "code": code}))


def _short(text: str) -> str:
    """As much of it as tells what it was: anybody may send a path of 60,000 characters, as often as they like."""
    return text if len(text) <= _SHORT_CHARS else f"{text[:_SHORT_CHARS]}…"


_SHORT_CHARS = 1_000


def _why(decision: Decision, message: str) -> str:
    for line in decision.failed:
        if line.per == "request" and line.unit == "tokens":
            return f"Request would use {line.asked} tokens, exceeding per-request limit of {line.limit}."
    return message
