"""Scopes: which calls a budget matches, and which account of it they fall into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.kernel.scope import TAG_LENGTH_MAX, TAGS_MAX, account_key, check_tags, concrete, matches, read_account_key

TEXT = st.text(max_size=8)
STARTS = st.sampled_from([(None, "")]) | st.tuples(st.integers(-5, 5), st.sampled_from(["day", "month Asia/Tokyo"]))
"""When a window starts, and how it is written: lifetimes have neither."""
TAGS = st.dictionaries(st.text(min_size=1, max_size=4), TEXT, max_size=4)


@given(TAGS, TAGS)
def test_a_scope_matches_exactly_the_calls_that_carry_all_its_tags(scope: dict[str, str], tags: dict[str, str]) -> None:
    assert matches(scope, tags) == (scope.items() <= tags.items())
    assert matches(scope, {**tags, **scope})
    assert matches({}, tags)


def test_each_without_the_tag_is_an_account_of_its_own_and_not_unmatched() -> None:
    absent = concrete({"team": "a"}, ("user",), {"team": "a"})
    assert absent == {"team": "a", "user": None}
    keys = [account_key("b", concrete({}, ("user",), tags), None) for tags in ({}, {"user": ""}, {"user": "None"})]
    assert len(set(keys)) == 3


@given(
    st.tuples(TEXT, st.dictionaries(TEXT, st.none() | TEXT, max_size=3), STARTS),
    st.tuples(TEXT, st.dictionaries(TEXT, st.none() | TEXT, max_size=3), STARTS),
)
def test_account_keys_are_equal_only_for_equal_accounts(
    one: tuple[str, dict[str, str | None], tuple[int | None, str]],
    other: tuple[str, dict[str, str | None], tuple[int | None, str]],
) -> None:
    assert (account_key(*one[:2], *one[2]) == account_key(*other[:2], *other[2])) == (one == other)


@pytest.mark.parametrize("text", ['",""],"', "|tokens", "\\", "[]", "a,b", "null", '"', "\x00", "ü"])
def test_no_text_breaks_out_of_a_key(text: str) -> None:
    assert account_key(text, {}, None) != account_key("", {text: ""}, None)
    assert account_key("b", {"user": text}, None) != account_key("b", {"user": None}, None)
    assert account_key("b", {"user": text, "x": "y"}, None) == account_key("b", {"x": "y", "user": text}, None)


def test_numbers_and_booleans_become_their_text() -> None:
    assert check_tags({"run": 42, "live": True, "share": 0.5}, field="tags") == {
        "run": "42",
        "live": "True",
        "share": "0.5",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [("a", "b")],
        "a=b",
        {"": "x"},
        {1: "x"},
        {"a": None},
        {"a": ["x"]},
        {"a": b"x"},
        {"a": "\udcff"},
        {"\udcff": "x"},
        {"a": "x" * (TAG_LENGTH_MAX + 1)},
        {"a" * (TAG_LENGTH_MAX + 1): "x"},
        {str(n): "x" for n in range(TAGS_MAX + 1)},
    ],
)
def test_wrong_tags_are_refused_by_name(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"^my_tags"):
        check_tags(wrong, field="my_tags")  # type: ignore[arg-type]


def test_the_bounds_themselves_are_allowed() -> None:
    most = {str(n).rjust(TAG_LENGTH_MAX, "0"): "x" * TAG_LENGTH_MAX for n in range(TAGS_MAX)}
    assert check_tags(most, field="tags") == most


@given(TEXT, st.dictionaries(TEXT, st.none() | TEXT, max_size=4), STARTS)
def test_an_account_key_can_be_read_again(
    name: str, scope: dict[str, str | None], window: tuple[int | None, str]
) -> None:
    assert read_account_key(account_key(name, scope, *window)) == (name, scope, window[0])
