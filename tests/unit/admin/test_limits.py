"""Limits in one word: read as they were meant, or not at all."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.admin.limits import Limit, budget_terms, parse_limit
from farthing.kernel.budget import make_budget


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("$5/day", Limit("usd", Decimal(5), "day")),
        ("$ 0.50 / hour", Limit("usd", Decimal("0.50"), "hour")),
        ("$1,234.50", Limit("usd", Decimal("1234.50"), "lifetime")),
        ("5 usd/week", Limit("usd", Decimal(5), "week")),
        ("5 USD per month", Limit("usd", Decimal(5), "month")),
        ("100k tokens/hour", Limit("tokens", 100_000, "hour")),
        ("100K tokens / hour", Limit("tokens", 100_000, "hour")),
        ("1M tokens/month Europe/Berlin", Limit("tokens", 1_000_000, "month Europe/Berlin")),
        ("1M tokens per month Europe/Berlin", Limit("tokens", 1_000_000, "month Europe/Berlin")),
        ("1.5M tokens", Limit("tokens", 1_500_000, "lifetime")),
        ("1,500 tokens/rolling 60s", Limit("tokens", 1_500, "rolling 60s")),
        ("200 requests/minute", Limit("requests", 200, "minute")),
        ("1 call/minute", Limit("requests", 1, "minute")),
        ("4 at once", Limit("concurrency", 4, "lifetime")),
        ("0 tokens", Limit("tokens", 0, "lifetime")),
        ("4k tokens/request", Limit("tokens", 4_000, "request")),
    ],
)
def test_what_people_write(text: str, limit: Limit) -> None:
    assert parse_limit(text, argument="budget") == limit


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("5", "does not say of what"),
        ("100k", "does not say of what"),
        ("$-5/day", "is not a limit"),
        ("-5 tokens", "is not a limit"),
        ("$5.0000000001", "is not a limit"),
        ("$5k/day", "is not a limit"),
        ("nan tokens", "is not a limit"),
        ("1,00 tokens", "is not a limit"),
        ("1e9 tokens", "is not a limit"),
        ("", "is not a limit"),
        ("€5/day", "is not a limit"),
        ("1.0005k tokens", "not a whole number of tokens"),
        ("0.5 requests", "not a whole number of requests"),
        ("$5/", "no window"),
        ("$5/fortnight", "per='fortnight' is not a window"),
        ("$5/day Atlantis", "unknown time zone 'Atlantis'"),
        ("$5/day/hour", "per"),
        ("$99999999999", "must be at most"),
        (5, "must be text"),
    ],
)
def test_what_is_not_understood_is_said(text: object, why: str) -> None:
    with pytest.raises(ValueError, match="budget") as caught:
        parse_limit(text, argument="budget")
    assert why in str(caught.value)


@given(st.text(max_size=40))
def test_anything_else_is_a_value_error_or_a_budget(text: str) -> None:
    try:
        limit = parse_limit(text, argument="budget")
    except ValueError:
        return
    for terms in budget_terms([limit]).values():
        try:
            make_budget("b", **terms)
        except ValueError as error:
            assert limit.unit == "concurrency" or "counter" in str(error)  # noqa: PT017 - which text it is, is found


def test_limits_over_one_window_are_one_budget() -> None:
    limits = [parse_limit(text, argument="budget") for text in ("$5/day", "100k tokens/day", "$50/month")]
    assert budget_terms(limits) == {
        "day": {"per": "day", "usd": Decimal(5), "tokens": 100_000},
        "month": {"per": "month", "usd": Decimal(50)},
    }


def test_two_limits_of_one_unit_over_one_window_are_refused() -> None:
    with pytest.raises(ValueError, match="two limits in usd are given per day: 5 and 6"):
        budget_terms([parse_limit(text, argument="budget") for text in ("$5/day", "$6/day")])
