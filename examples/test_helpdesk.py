"""
Testing what your program does when the money runs out: offline, exactly, without waiting for midnight.

The fixtures come with farthing. ``fake_clock`` makes all of farthing go by a clock that you move. Run it with pytest.

Output::

    .                                                                        [100%]
    1 passed in …
"""

from openai import OpenAI

import farthing
from farthing.testing import FakeClock, FakeProvider, Reply


@farthing.budget("helpdesk", tokens=150, per="day")
def answer(client: OpenAI, question: str) -> str:
    try:
        return client.responses.create(model="gpt-4o-mini", input=question, max_output_tokens=100).output_text
    except farthing.BudgetExceeded:
        return "Please come back tomorrow."


def test_says_so_when_the_day_is_used_up(fake_provider: FakeProvider, fake_clock: FakeClock) -> None:
    client = farthing.instrument(OpenAI(base_url=fake_provider.openai_url, api_key="fake"))
    fake_provider.reply = Reply("Second shelf on the left.", output_tokens=100)

    assert answer(client, "Where is the tea?") == "Second shelf on the left."
    assert answer(client, "And the milk?") == "Please come back tomorrow."
    assert fake_provider.posts == 1
    fake_clock.advance(hours=24)
    assert answer(client, "And the milk?") == "Second shelf on the left."
    farthing.report().assert_under(usd=0.001)
