"""What one proxy has done since it started: counters of this process, for :attr:`Server.stats` and for metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..calls.call import Call
from ..calls.endings import Lost


class Vitals(NamedTuple):
    """What one worker has in hand at this instant. All but the tasks that serve it are gone when nobody calls."""

    connections: int
    """Of clients, idle ones too."""
    calls_in_flight: int
    tasks: int
    """Of its event loop."""


@dataclass(slots=True)
class Stats:
    """``requests`` = ``forwarded`` + ``blocked`` + ``refused``, and those that are being read."""

    requests: int = 0
    forwarded: int = 0
    """Went to an upstream."""
    blocked: int = 0
    """Refused by a budget."""
    refused: int = 0
    """Refused for another reason."""
    unmetered: int = 0
    """Forwarded although nothing here can measure them."""
    in_flight: int = 0
    tokens_used: int = 0
    tokens_held: int = 0
    cost_nano: int = 0
    unpriced: int = 0
    """Calls that ended with an unknown cost."""
    unknown_endings: int = 0
    """Calls that may have been billed, and nobody knows."""

    def began(self, call: Call) -> int:
        """A call is about to be sent. Returns what is held for it in tokens; 0 where no budget was asked."""
        held_tokens = 0
        admitted = call.admitted
        if admitted is not None and admitted.asked is not None and admitted.granted is not None:
            facts = admitted.asked.ask.facts
            held_tokens = facts.input_tokens + facts.choices * admitted.granted.x
        self.forwarded += 1
        self.in_flight += 1
        self.tokens_held += held_tokens
        return held_tokens

    def ended(self, call: Call, held_tokens: int) -> None:
        """Its last word has been said."""
        self.in_flight -= 1
        self.tokens_held -= held_tokens
        ending = call.ending
        if call.asks:
            return
        if ending is None or isinstance(ending, Lost):
            self.unknown_endings += 1
            return
        outcome = ending.outcome
        self.tokens_used += outcome.usage.total_tokens
        if outcome.cost_nano is None:
            self.unpriced += 1
        else:
            self.cost_nano += outcome.cost_nano
