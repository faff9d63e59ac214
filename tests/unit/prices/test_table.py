"""
Our prices against the source's own calculation, on its own rows and random usage.

Where the two differ on purpose: the table's calculation prices cache writes that it has no rate for as plain input,
and long ones as short ones; we take the documented multiples of Anthropic and OpenAI. It counts hosted searches and
the like, which a token usage does not have. It has no rate for what we refuse as unpriced.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from genai_prices import Usage as TableUsage
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.kernel.usage import Usage
from farthing.prices.table import Listed, load

AT = 1_795_305_600_000
WHEN = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=AT)
COUNT = st.integers(0, 400_000)


def usable_rows() -> list[tuple[Listed, Any]]:
    table = load()
    rows = []
    for provider in get_snapshot().providers:
        for info in provider.models:
            rates = table.rates(Listed(provider, info), AT)
            # A row without an output price makes no output; ours would cost something if it did, theirs would not.
            if not isinstance(rates, str) and vars(info.get_prices(WHEN)).get("output_mtok") is not None:
                rows.append((Listed(provider, info), rates))
    return rows


ROWS = usable_rows()


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(ROWS), COUNT, COUNT, COUNT, COUNT, COUNT, st.data())
def test_costs_agree_with_the_source(
    row: tuple[Listed, Any], fresh: int, cached: int, written: int, hour: int, output: int, data: st.DataObject
) -> None:
    listed, rates = row
    stated = vars(listed.info.get_prices(WHEN))
    claude = "claude" in listed.info.id
    if claude and stated.get("cache_write_mtok") is None:
        written = 0
    if stated.get("cache_write_1h_mtok") is None and (claude or stated.get("cache_write_mtok") is not None):
        hour = 0
    reasoning = data.draw(st.integers(0, output))
    ours = Usage(
        input=fresh, cached=cached, cache_write=written, cache_write_1h=hour, output=output, reasoning=reasoning
    )
    theirs = TableUsage(
        input_tokens=fresh + cached + written + hour,
        cache_read_tokens=cached,
        cache_write_tokens=written + hour,
        cache_write_1h_tokens=hour,
        output_tokens=output,
        output_reasoning_tokens=reasoning,
        output_citation_tokens=0,
        input_audio_tokens=0,
        cache_audio_read_tokens=0,
        input_image_tokens=0,
        cache_image_read_tokens=0,
        input_video_tokens=0,
        output_audio_tokens=0,
        output_image_tokens=0,
        output_video_tokens=0,
    )
    total = listed.info.calc_price(theirs, listed.provider, genai_request_timestamp=WHEN).total_price
    expected = int((total * 10**9).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    # The source multiplies with 28 digits: its last one may decide a tie.
    assert abs(rates.cost_nano(ours) - expected) <= (0 if expected < 10**15 else 1)


AUDIO_ROWS = [row for row in ROWS if "input_audio_mtok" in vars(row[0].info.get_prices(WHEN))]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(AUDIO_ROWS), COUNT, COUNT, COUNT, COUNT)
def test_audio_agrees_with_the_source(row: tuple[Listed, Any], text: int, audio: int, spoken: int, said: int) -> None:
    listed, rates = row
    stated = vars(listed.info.get_prices(WHEN))
    theirs = TableUsage(
        input_tokens=text + audio,
        input_audio_tokens=audio,
        cache_read_tokens=0,
        cache_audio_read_tokens=0,
        input_image_tokens=0,
        cache_image_read_tokens=0,
        input_video_tokens=0,
        output_tokens=said + spoken,
        output_audio_tokens=spoken,
    )
    priced_spoken = stated.get("output_audio_mtok") is not None
    ours = Usage(
        input=text,
        input_audio=audio,
        output=said if priced_spoken else said + spoken,
        output_audio=spoken if priced_spoken else 0,
    )
    total = listed.info.calc_price(theirs, listed.provider, genai_request_timestamp=WHEN).total_price
    assert rates.cost_nano(ours) == int((total * 10**9).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def test_claude_cache_writes_without_a_listed_rate_cost_anthropics_multiples() -> None:
    table, snapshot = load(), get_snapshot()
    provider, info = snapshot.find_provider_model("claude-3-opus-20240229", None, "aws", None)
    assert vars(info.get_prices(WHEN)).get("cache_write_mtok") is None
    rates = table.rates(Listed(provider, info), AT)
    assert not isinstance(rates, str)
    once = rates.cost_nano(Usage(input=1000))
    assert rates.cost_nano(Usage(cache_write=1000)) * 4 == once * 5
    assert rates.cost_nano(Usage(cache_write_1h=1000)) == once * 2


def test_a_long_cache_write_at_openai_costs_what_the_tables_note_says() -> None:
    table, snapshot = load(), get_snapshot()
    provider, info = snapshot.find_provider_model("gpt-6.1-terra", None, "openai", None)
    rates = table.rates(Listed(provider, info), AT)
    assert not isinstance(rates, str)
    assert "12-hour retention rate ($2.50)" in str(info.price_comments)
    assert rates.cost_nano(Usage(cache_write_1h=1000)) == 2_500_000
    assert rates.cost_nano(Usage(cache_write=1000)) == 1_250_000


def test_the_source_date_is_not_in_the_future_of_its_own_prices() -> None:
    assert load().source_date is not None
    assert "2025-01-01" < str(load().source_date) < "2030-01-01"
