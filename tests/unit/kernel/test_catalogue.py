"""The catalogue: budgets, grants and freezing, each change a new version, each mistake said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farthing.errors import ConfigError
from farthing.kernel.budget import make_budget
from farthing.kernel.catalogue import Catalogue, Grant

DAY_MS = 86_400_000
NOW = 20_000 * DAY_MS + 1
DAILY = make_budget("daily", tokens=10, per="day", each=["user"])
TOTAL = make_budget("total", tokens=10, usd=1, on_exceed="clamp")
BASE = Catalogue().with_budget(DAILY, update=False).with_budget(TOTAL, update=False)


def test_naming_a_budget_again_with_its_own_terms_changes_nothing() -> None:
    assert BASE.version == 2
    assert BASE.with_budget(make_budget("daily", tokens=10, per="day", each=["user"]), update=False) is BASE
    assert BASE.with_budget(DAILY, update=True) is BASE


def test_other_terms_need_update_and_the_message_shows_the_known_ones() -> None:
    other = make_budget("daily", tokens=11, per="day", each=["user"])
    with pytest.raises(ConfigError, match=r"'daily' exists with other terms \(10 tokens per day.*update=True"):
        BASE.with_budget(other, update=False)
    updated = BASE.with_budget(other, update=True)
    assert (updated.version, updated.budgets["daily"].tokens) == (3, 11)
    assert BASE.budgets["daily"].tokens == 10, "a catalogue is an immutable snapshot"


FILE = replace(DAILY, standing=True, defined_by="/etc/farthing.toml")


def test_a_file_owns_what_it_defines() -> None:
    owned = BASE.with_budget(FILE, update=True)
    assert owned.budgets["daily"] == FILE
    assert owned.with_budget(DAILY, update=False) is owned, "naming it with its own terms claims nothing"
    other = make_budget("daily", tokens=11, per="day", each=["user"])
    for change in (
        lambda: owned.with_budget(other, update=True),
        lambda: owned.with_budget(replace(FILE, defined_by="/etc/other.toml"), update=True),
        lambda: owned.without_budget("daily"),
        lambda: owned.without_budget("daily", defined_by="/etc/other.toml"),
    ):
        with pytest.raises(ConfigError, match=r"'daily' is defined by /etc/farthing.toml .*: change it there"):
            change()
    changed = owned.with_budget(replace(FILE, tokens=11), update=True)
    assert changed.budgets["daily"].tokens == 11
    assert "daily" not in changed.without_budget("daily", defined_by="/etc/farthing.toml").budgets


def test_what_is_no_edit_is_allowed_on_a_budget_of_a_file() -> None:
    owned = BASE.with_budget(FILE, update=True).with_grant(Grant("daily", "tokens", 5, NOW)).with_frozen("daily", True)
    assert owned.account(FILE, {}, NOW).ceiling("tokens") == 15
    assert owned.frozen == {"daily"}


def test_removing_takes_its_grants_and_its_ice_along() -> None:
    full = BASE.with_grant(Grant("daily", "tokens", 5, NOW)).with_frozen("daily", True)
    without = full.without_budget("daily")
    assert (set(without.budgets), without.grants, without.frozen) == ({"total"}, (), frozenset())
    assert without.version == full.version + 1
    back = without.with_budget(DAILY, update=False)
    assert back.account(DAILY, {}, NOW).ceiling("tokens") == 10


@pytest.mark.parametrize("change", ["without_budget", "with_frozen", "with_grant"])
def test_an_unknown_budget_is_named(change: str) -> None:
    calls = {
        "without_budget": lambda: BASE.without_budget("dialy"),
        "with_frozen": lambda: BASE.with_frozen("dialy", True),
        "with_grant": lambda: BASE.with_grant(Grant("dialy", "tokens", 1, NOW)),
    }
    with pytest.raises(ConfigError, match="'dialy'"):
        calls[change]()


@pytest.mark.parametrize("amount", [0, -1, 1.5, True, float("nan"), "5", None])
def test_a_grant_is_a_whole_amount_above_zero(amount: object) -> None:
    """NaN above all: it compares as not below anything, and would lift the ceiling to the sky."""
    with pytest.raises(ConfigError, match="amount"):
        BASE.with_grant(Grant("total", "tokens", amount, NOW))  # type: ignore[arg-type]


def test_a_grant_needs_a_limit_to_raise() -> None:
    with pytest.raises(ConfigError, match="requests"):
        BASE.with_grant(Grant("total", "requests", 5, NOW))


def test_a_grant_for_a_tag_that_the_budget_does_not_split_by_is_a_typo_and_said() -> None:
    with pytest.raises(ConfigError, match="usr"):
        BASE.with_grant(Grant("daily", "tokens", 5, NOW, scope=(("usr", "alice"),)))


def test_a_grant_raises_the_ceiling_of_its_scope_its_window_and_its_time() -> None:
    granted = BASE.with_grant(Grant("daily", "tokens", 5, NOW, NOW + 100, (("user", "alice"),)))

    def ceiling(tags: dict[str, str], now_ms: int) -> int | None:
        return granted.account(DAILY, tags, now_ms).ceiling("tokens")

    assert ceiling({"user": "alice"}, NOW) == 15
    assert ceiling({"user": "alice"}, NOW + 99) == 15
    assert ceiling({"user": "alice"}, NOW + 100) == 10
    assert ceiling({"user": "bob"}, NOW) == 10
    assert ceiling({}, NOW) == 10


def test_a_grant_without_an_end_dies_with_its_window() -> None:
    granted = BASE.with_grant(Grant("daily", "tokens", 5, NOW)).with_grant(Grant("total", "usd", 7, NOW))
    tomorrow = NOW + DAY_MS
    assert granted.account(DAILY, {}, NOW).ceiling("tokens") == 15
    assert granted.account(DAILY, {}, tomorrow).ceiling("tokens") == 10
    assert granted.account(TOTAL, {}, tomorrow).ceiling("usd") == 1_000_000_007


def test_a_plan_with_a_grant_is_good_until_the_grant_ends() -> None:
    granted = BASE.with_grant(Grant("daily", "tokens", 5, NOW, NOW + 100)).with_grant(
        Grant("total", "tokens", 1, NOW, NOW + 50)
    )
    assert granted.account(DAILY, {}, NOW).valid_until_ms == NOW + 100
    assert granted.account(TOTAL, {}, NOW).valid_until_ms == NOW + 50
    assert granted.account(TOTAL, {}, NOW + 50).valid_until_ms is None
    assert granted.account(DAILY, {}, NOW + 100).valid_until_ms == 20_001 * DAY_MS


def test_several_grants_add_up_unit_by_unit() -> None:
    granted = BASE
    for unit, amount in (("tokens", 1), ("tokens", 2), ("usd", 4)):
        granted = granted.with_grant(Grant("total", unit, amount, NOW))
    account = granted.account(TOTAL, {}, NOW)
    assert (account.ceiling("tokens"), account.ceiling("usd")) == (13, 1_000_000_004)


def test_freezing_twice_is_freezing_once() -> None:
    frozen = BASE.with_frozen("daily", True)
    assert frozen.with_frozen("daily", True) is frozen
    assert frozen.account(DAILY, {}, NOW).frozen
    assert not frozen.account(TOTAL, {}, NOW).frozen
    thawed = frozen.with_frozen("daily", False)
    assert (thawed.frozen, thawed.version) == (frozenset(), frozen.version + 1)
    assert thawed.with_frozen("daily", False) is thawed
