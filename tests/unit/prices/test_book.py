"""From a model's name to its price: registrations, the public table, other spellings, and what is not a price."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from decimal import Decimal
from typing import Any

import pytest

from farthing import prices
from farthing.errors import UnpricedModel
from farthing.kernel.usage import Usage
from farthing.prices import PriceBook

AT = 1_795_305_600_000  # 2026-11-22T00:00Z


@pytest.fixture
def book() -> PriceBook:
    return PriceBook()


def test_a_listed_model_has_its_list_price(book: PriceBook) -> None:
    rates = book.rates("gpt-4o", provider="openai", at_ms=AT)
    assert rates.cost_nano(Usage(input=1_000_000)) == 2_500_000_000
    assert rates.cost_nano(Usage(output=1_000_000)) == 10_000_000_000
    assert rates.version.startswith("genai-prices ")
    assert "openai/gpt-4o" in rates.version
    assert book.rates("gpt-4o", provider="openai", at_ms=AT) is rates


@pytest.mark.parametrize(
    ("model", "provider", "matched", "how"),
    [
        ("gpt-4o", "openai", "openai/gpt-4o", "exact"),
        ("GPT-4o", None, "openai/gpt-4o", "exact"),
        ("gpt-4o-2024-11-20", "openai", "openai/gpt-4o", "exact"),
        ("gpt-4o-2024-05-13", "openai", "openai/gpt-4o-2024-05-13", "exact"),
        ("openai/gpt-4o", "openai", "openai/gpt-4o", "normalised"),
        ("openai/gpt-4o", None, "openai/gpt-4o", "normalised"),
        ("azure/gpt-4o", None, "azure/gpt-4o", "normalised"),
        ("openrouter/openai/gpt-4o", None, "openrouter/openai/gpt-4o", "normalised"),
        ("claude-opus-5-5", "anthropic", "anthropic/claude-opus-5-5", "exact"),
        ("claude-sonnet-4-5-20250929", "anthropic", "anthropic/claude-sonnet-4-5", "exact"),
        ("claude-sonnet-4-5@20250929", "google", "google/claude-sonnet-4-5", "exact"),
        ("models/gemini-2.5-pro", "google", "google/gemini-2.5-pro", "normalised"),
        ("publishers/google/models/gemini-2.5-pro", None, "google/gemini-2.5-pro", "normalised"),
        ("anthropic/claude-opus-5-5", "openai", "anthropic/claude-opus-5-5", "exact"),
        ("ft:gpt-4o-2024-08-06:org::id", "openai", "openai/ft:gpt-4o", "exact"),
    ],
)
def test_other_spellings_find_the_same_price(
    book: PriceBook, model: str, provider: str | None, matched: str, how: str
) -> None:
    explanation = book.explain(model, provider, at_ms=AT)
    assert f"{explanation.matched_provider}/{explanation.matched_model}" == matched
    if how == "normalised":
        assert explanation.how == how


def test_a_bedrock_name_has_the_price_of_its_region(book: PriceBook) -> None:
    regional = book.rates("us.anthropic.claude-sonnet-4-5-20250929-v1:0", provider="anthropic", at_ms=AT)
    worldwide = book.rates("global.anthropic.claude-sonnet-4-5-20250929-v1:0", at_ms=AT)
    assert regional.provider == worldwide.provider == "aws"
    assert regional.cost_nano(Usage(input=1000)) > worldwide.cost_nano(Usage(input=1000))


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("no-such-model", None),
        ("no-such-model", "no-such-provider"),
        ("gpt-4o-2099-01-01", "openai"),  # a snapshot may have a price of its own: not guessed
        ("ft:gpt-4.1-2025-04-14:org::id", "openai"),  # nor is a fine-tune's
        ("whisper-1", "openai"),  # priced by the hour
        ("tts-1", "openai"),  # by the character
        ("deepseek-r1:free", "openrouter"),  # the table states zero
        ("", None),
    ],
)
def test_an_unknown_price_is_never_zero(book: PriceBook, model: str, provider: str | None) -> None:
    with pytest.raises(UnpricedModel) as caught:
        book.rates(model, provider=provider, at_ms=AT)
    assert caught.value.model == model
    assert isinstance(caught.value, KeyError), "what programs that looked prices up before catch"
    explanation = book.explain(model, provider, at_ms=AT)
    assert explanation.how == "unpriced"
    assert explanation.notes


def test_every_row_of_the_table_is_priced_above_zero_or_not_at_all(book: PriceBook) -> None:
    from genai_prices.data_snapshot import get_snapshot

    from farthing.prices.table import Listed, load

    table = load()
    priced = 0
    for provider in get_snapshot().providers:
        for info in provider.models:
            rates = table.rates(Listed(provider, info), AT)
            if not isinstance(rates, str):
                priced += 1
                assert rates.cost_nano(Usage(input=1_000_000)) > 0, info.id
                assert rates.cost_nano(Usage(output=1_000_000)) > 0, info.id
    assert priced > 2000


def test_a_registered_price_outranks_the_table_and_can_be_forgotten(book: PriceBook) -> None:
    listed = book.rates("gpt-4o", at_ms=AT)
    book.register("gpt-4o", input=1, output=2)
    assert book.rates("gpt-4o", at_ms=AT).cost_nano(Usage(input=1_000_000, output=1_000_000)) == 3_000_000_000
    assert book.rates("openai/GPT-4o", provider="openai", at_ms=AT).provider == "registered"
    assert book.explain("gpt-4o", at_ms=AT).how == "registered"
    assert "input=1 output=2 USD per 1M" in book.rates("gpt-4o", at_ms=AT).version
    book.unregister("gpt-4o")
    assert book.rates("gpt-4o", at_ms=AT) == listed
    with pytest.raises(LookupError, match="gpt-4o"):
        book.unregister("gpt-4o")


def test_a_registered_zero_is_honoured(book: PriceBook) -> None:
    book.register("local-llama", input=0, output=0)
    rates = book.rates("local-llama", at_ms=AT)
    assert rates.cost_nano(Usage(input=10**9, output=10**9)) == 0
    assert rates.bound(input_tokens=10**9).at(10**9) == 0


def test_patterns_match_after_exact_names_and_the_longest_first(book: PriceBook) -> None:
    book.register("my-*", input=1, output=1)
    book.register("my-big-*", input=2, output=2)
    book.register("my-big-one", input=3, output=3)
    for model, usd in (("my-small", 1), ("my-big-two", 2), ("my-big-one", 3), ("vendor/my-small", 1)):
        assert book.rates(model, at_ms=AT).cost_nano(Usage(input=1_000_000)) == usd * 10**9


@pytest.mark.parametrize(("per", "price"), [("1M", "2.5"), ("1K", "0.0025"), ("token", "0.0000025")])
def test_prices_are_per_million_thousand_or_token(book: PriceBook, per: str, price: str) -> None:
    book.register("m", input=Decimal(price), output=float(price), per=per)
    rates = book.rates("m", at_ms=AT)
    assert rates.cost_nano(Usage(input=1)) == rates.cost_nano(Usage(output=1)) == 2500


def test_what_a_registration_leaves_out_is_never_free(book: PriceBook) -> None:
    book.register("m", input=4, output=8)
    book.register("claude-mine", input=4, output=8)
    plain, claude = book.rates("m", at_ms=AT), book.rates("claude-mine", at_ms=AT)
    assert plain.cost_nano(Usage(cached=1)) == plain.cost_nano(Usage(cache_write=1)) == 4000
    assert plain.cost_nano(Usage(cache_write_1h=1)) == plain.cost_nano(Usage(input_audio=1)) == 4000
    assert plain.cost_nano(Usage(output_audio=1)) == plain.cost_nano(Usage(output=1, reasoning=1)) == 8000
    assert claude.cost_nano(Usage(cache_write=1)) == 5000
    assert claude.cost_nano(Usage(cache_write_1h=1)) == 8000
    book.register("m", input=4, output=8, cached=1, cache_write=5, cache_write_1h=6)
    rates = book.rates("m", at_ms=AT)
    assert [rates.cost_nano(Usage(**{kind: 1})) for kind in ("cached", "cache_write", "cache_write_1h")] == [
        1000,
        5000,
        6000,
    ]


@pytest.mark.parametrize("field", ["input", "output", "cached", "cache_write", "cache_write_1h"])
@pytest.mark.parametrize("value", [-1, "1", True, float("nan"), Decimal("Infinity"), Decimal("NaN"), None, [1]])
def test_a_wrong_price_names_its_field(book: PriceBook, field: str, value: Any) -> None:
    given: dict[str, Any] = {"input": 1, "output": 1, field: value}
    if value is None and field not in {"input", "output"}:
        book.register("m", **given)  # None means "not given"
        return
    with pytest.raises(ValueError, match=f"^{field} "):
        book.register("m", **given)


@pytest.mark.parametrize("model", ["", "  ", 5, None])
def test_a_wrong_model_is_named(book: PriceBook, model: Any) -> None:
    with pytest.raises(ValueError, match="model"):
        book.register(model, input=1, output=1)


def test_a_wrong_unit_is_named(book: PriceBook) -> None:
    with pytest.raises(ValueError, match="per"):
        book.register("m", input=1, output=1, per="1B")


def test_a_price_with_a_start_date_changes_on_that_day(book: PriceBook) -> None:
    # Gemini 4 Argon has introductory rates until the end of November 2026, in the table as of 2026-10.
    change = 1_796_083_200_000  # 2026-12-01T00:00Z
    before = book.rates("gemini-4-argon", provider="google", at_ms=change - 1)
    after = book.rates("gemini-4-argon", provider="google", at_ms=change)
    assert before.valid_until_ms == after.valid_from_ms == change
    assert after.cost_nano(Usage(input=1000)) == 2 * before.cost_nano(Usage(input=1000))
    assert before.version != after.version
    assert book.rates("gemini-4-argon", provider="google", at_ms=change - 1) == before


def test_a_price_by_the_time_of_day_changes_at_that_time(book: PriceBook) -> None:
    def at(hour: int, minute: int) -> int:
        return AT + (hour * 60 + minute) * 60_000

    night = book.rates("deepseek-chat", provider="deepseek", at_ms=at(0, 29))
    day = book.rates("deepseek-chat", provider="deepseek", at_ms=at(0, 30))
    evening = book.rates("deepseek-chat", provider="deepseek", at_ms=at(16, 30))
    assert (night.valid_until_ms, day.valid_from_ms) == (at(0, 30), at(0, 30))
    assert (day.valid_until_ms, evening.valid_from_ms) == (at(16, 30), at(16, 30))
    assert night.cost_nano(Usage(input=1000)) == evening.cost_nano(Usage(input=1000))
    assert day.cost_nano(Usage(input=1000)) > night.cost_nano(Usage(input=1000))


def test_price_as_says_so_in_its_version(book: PriceBook) -> None:
    rates = book.rates_as("gpt-4o", model="my-deployment", at_ms=AT)
    assert rates.cost_nano(Usage(input=1000)) == book.rates("gpt-4o", at_ms=AT).cost_nano(Usage(input=1000))
    assert rates.version.startswith("my-deployment priced as gpt-4o: genai-prices ")
    with pytest.raises(UnpricedModel, match="nothing-either"):
        book.rates_as("nothing-either", model="my-deployment", at_ms=AT)


def test_an_explanation_is_readable_and_json(book: PriceBook) -> None:
    explanation = book.explain("claude-haiku-5-5", "anthropic", at_ms=AT)
    assert explanation.usd_per_million["input"] == Decimal("0.1")
    assert explanation.tiers[100_000]["input"] == Decimal("0.5")
    assert "above 100,000 input tokens" in str(explanation)
    assert "$0.125 per 1M tokens" in str(explanation)
    as_json = json.loads(json.dumps(explanation.to_dict()))
    assert as_json["usd_per_million"]["output"] == "0.5"
    assert as_json["source_date"] == explanation.source_date
    assert "no price is known" in str(book.explain("nope", at_ms=AT))


def test_priority_is_priced_apart_where_the_table_knows_it(book: PriceBook) -> None:
    rates = book.rates("gpt-4o", provider="openai", at_ms=AT)
    assert rates.cost_nano(Usage(input=1_000_000), service_tier="priority") == 4_250_000_000
    assert rates.bound(input_tokens=1_000_000).base == 2_500_000_000 * rates.den
    assert rates.bound(input_tokens=1_000_000, service_tier="auto").base == 4_250_000_000 * rates.den


def test_inference_that_is_bound_to_a_region_costs_a_tenth_more(book: PriceBook) -> None:
    rates = book.rates("claude-opus-4-8", provider="anthropic", at_ms=AT)
    usage = Usage(input=1_000, cached=1_000, cache_write=1_000, cache_write_1h=1_000, output=1_000)
    plain, fast = rates.cost_nano(usage), rates.cost_nano(usage, service_tier="fast")
    assert rates.cost_nano(usage, service_tier="regional") * 10 == plain * 11
    assert rates.cost_nano(usage, service_tier="fast regional") * 10 == fast * 11
    held = rates.bound(input_tokens=1_000, service_tier="regional")
    assert held.at(1_000) * 10 == rates.bound(input_tokens=1_000).at(1_000) * 11
    assert "regional" not in book.rates("gpt-4o", provider="openai", at_ms=AT).variants


def test_the_age_is_counted_from_the_newest_check(book: PriceBook) -> None:
    age = book.age_days(AT)
    assert age is not None
    assert book.age_days(AT + 86_400_000) == age + 1


def test_an_estimate_is_what_would_be_held(book: PriceBook) -> None:
    assert book.estimate("gpt-4o", input_tokens=1000, max_output_tokens=500, at_ms=AT) == Decimal("0.0075")
    for field in ("input_tokens", "max_output_tokens"):
        for wrong in (-1, 1.0, True, "1"):
            counts: dict[str, Any] = {"input_tokens": 1, "max_output_tokens": 1, field: wrong}
            with pytest.raises(ValueError, match=field):
                book.estimate("gpt-4o", **counts, at_ms=AT)


def test_threads_that_race_for_the_first_price_all_get_it() -> None:
    book = PriceBook()
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(book.rates("gpt-4o", at_ms=AT).cost_nano(Usage(input=1))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2500] * 8


def test_names_from_requests_do_not_fill_the_memory(book: PriceBook) -> None:
    book.register("m-*", input=1, output=1)
    for number in range(5000):
        book.rates(f"m-{number}", at_ms=AT)
    assert len(book._answers) <= 4096


def test_importing_prices_loads_no_table() -> None:
    code = "import sys, farthing.prices; sys.exit({'genai_prices', 'pydantic'} & set(sys.modules) != set())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_module_functions_share_one_book() -> None:
    prices.register("module-level-model", input=1, output=2)
    try:
        assert prices.explain("module-level-model").how == "registered"
        assert prices.estimate("module-level-model", 1_000_000, 1_000_000) == 3
        assert prices.rates_of("module-level-model").cost_nano(Usage(input=1)) == 1000
        assert prices.default_book.rates("module-level-model", at_ms=AT).provider == "registered"
    finally:
        prices.unregister("module-level-model")
    assert prices.age_days(AT) is not None
