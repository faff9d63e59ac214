"""
Windows: how much per day, and how much in any sixty seconds. A fake clock stands in for waiting.

Calendar windows begin with the day of the zone you name. A rolling window is any span of that length; it gives back
what has left it, in twelve small steps.

Output::

    23:59 in Berlin: paid
    23:59 in Berlin: 'daily' says no, until 2026-06-30 22:00 UTC
    00:00 in Berlin: paid
    again at once: 'a-minute' says no, for 65.0 s
    a minute later: paid
"""

from datetime import UTC, datetime

from openai import OpenAI

from farthing import BudgetExceeded, budget, instrument
from farthing.testing import FakeClock, FakeProvider

with FakeClock(datetime(2026, 6, 30, 21, 59, 0, tzinfo=UTC)) as clock, FakeProvider() as provider:
    client = instrument(OpenAI(base_url=provider.openai_url, api_key="offline"))

    def ask(when: str, purse) -> None:
        try:
            with purse:
                client.responses.create(model="gpt-4o-mini", input="Hi", max_output_tokens=50)
            print(f"{when}: paid")
        except BudgetExceeded as no:
            until = f"for {no.retry_after_seconds} s" if "minute" in no.budget else f"until {no.resets_at:%F %R} UTC"
            print(f"{when}: {no.budget!r} says no, {until}")

    daily = budget("daily", requests=1, per="day Europe/Berlin")
    ask("23:59 in Berlin", daily)
    ask("23:59 in Berlin", daily)
    clock.advance(minutes=1)
    ask("00:00 in Berlin", daily)
    rolling = budget("a-minute", requests=1, per="rolling 60s")
    with rolling:
        client.responses.create(model="gpt-4o-mini", input="Hi", max_output_tokens=50)
    ask("again at once", rolling)
    clock.advance(seconds=65)
    ask("a minute later", rolling)
