"""``farthing budgets``: what is set is in force, what is shown is what the ledger holds."""

from __future__ import annotations

import getpass
import json
import shlex
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import farthing
from tests.unit.cli.conftest import Run


def test_a_budget_that_is_set_binds_every_call(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    ran = run("budgets", "set", "everything", "--tokens", 1_000, "--per", "day", "--ledger", path)
    assert ran.code == 0
    assert "1,000 tokens per day" in ran.out
    farthing.configure(ledger=f"sqlite:///{path}")
    with farthing.hold(tokens=1_000):
        pass
    with pytest.raises(farthing.BudgetExceeded) as denied, farthing.hold(tokens=1):
        pass
    assert denied.value.budget == "everything"
    farthing.reset()


def test_every_term_reaches_the_budget(run: Run, tmp_path: Path) -> None:
    words = [
        *("--usd", "5.00", "--tokens", "1000", "--requests", "7", "--per", "month Europe/Berlin"),
        *("--on-exceed", "downgrade", "--downgrade", "gpt-4o=gpt-4o-mini", "--downgrade", "a=b"),
        *("--scope", "team=search", "--each", "user,run", "--description", "for the team"),
    ]
    path = tmp_path / "new.db"
    now = run("budgets", "set", "b", *words, "--json", "--ledger", path).json["now"]
    terms = run("budgets", "show", "b", "--json", "--ledger", path).json["terms"]
    assert terms == {**now, "frozen": False}
    assert now["usd_nano"] == 5_000_000_000
    assert (now["tokens"], now["requests"], now["window"]) == (1_000, 7, "month Europe/Berlin")
    assert now["downgrade"] == {"gpt-4o": "gpt-4o-mini", "a": "b"}
    assert (now["scope"], now["each"], now["standing"]) == ({"team": "search"}, ["user", "run"], True)
    assert now["description"] == "for the team"


def test_other_terms_need_update_and_keep_what_is_not_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    set_it = ("budgets", "set", "b", "--ledger", path)
    assert run(*set_it, "--usd", "5", "--per", "day").code == 0
    assert run(*set_it, "--usd", "5", "--per", "day").code == 0, "the same terms again are no change"
    refused = run(*set_it, "--usd", "6", "--per", "day")
    assert refused.code == 2
    assert "usd $5.00 → $6.00" in refused.err
    assert run(*set_it, "--usd", "6", "--update").code == 0
    terms = run("budgets", "show", "b", "--json", "--ledger", path).json["terms"]
    assert (terms["usd_nano"], terms["window"]) == (6_000_000_000, "day")


def test_a_budget_that_a_program_named_stays_where_it_is_named(run: Run, ledger: Path) -> None:
    ran = run("budgets", "set", "nightly", "--tokens", 20_000, "--update", "--ledger", ledger)
    assert ran.code == 0
    assert "under its name" in ran.out
    assert run("budgets", "show", "nightly", "--json", "--ledger", ledger).json["terms"]["standing"] is False


def test_list_shows_limit_spent_held_suspect_left_and_reset(run: Run, after_a_kill: Path) -> None:
    run("budgets", "set", "all", "--usd", "100", "--per", "month", "--ledger", after_a_kill)
    ran = run("budgets", "list", "--ledger", after_a_kill)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "per month, resets in" in ran.out
    (line,) = [line for line in ran.out.splitlines() if line.strip().startswith("tokens")]
    assert line.split()[2:] == ["0", "3,000", "7,000", "10,000"]
    assert "▒" in line
    assert "suspect: outcome unknown" in ran.out


def test_json_has_exact_figures(run: Run, ledger: Path) -> None:
    (nightly,) = run("budgets", "list", "--json", "--ledger", ledger).json["budgets"]
    assert nightly["name"] == "nightly"
    assert nightly["tokens"] == {
        "limit": 10_000,
        "granted": 0,
        "spent": 3_010,
        "held": 0,
        "suspect": 0,
        "remaining": 6_990,
        "overrun": 0,
    }
    # 3,000 at $0.15 and 10 at $0.60 per million.
    assert Decimal(nightly["usd"]["spent"]) == Decimal("0.000456")
    assert nightly["usd"]["limit"] is None


def test_an_account_for_each_value(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "each.db"
    run("budgets", "set", "each-user", "--tokens", 100, "--each", "user", "--ledger", path)
    assert "no call yet" in run("budgets", "list", "--ledger", path).out
    farthing.configure(ledger=f"sqlite:///{path}")
    for user, tokens in (("bob", 10), ("alice", 150)):
        with farthing.track(user=user):
            farthing.record({"input_tokens": tokens})
    farthing.record({"input_tokens": 5})
    farthing.reset()
    accounts = run("budgets", "list", "--json", "--ledger", path).json["budgets"]
    assert [(row["scope"], row["tokens"]["spent"]) for row in accounts] == [
        ({"user": None}, 5),
        ({"user": "alice"}, 150),
        ({"user": "bob"}, 10),
    ]
    shown = run("budgets", "list", "--ledger", path).out
    assert "each-user user=alice" in shown
    assert "each-user (no user)" in shown
    assert "over 50" in shown


def test_a_grant_raises_the_limit_and_is_signed(run: Run, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "olga")
    words = ("--tokens", 500, "--until", "7d", "--reason", "launch week")
    assert run("budgets", "grant", "nightly", *words, "--ledger", ledger).code == 0
    shown = run("budgets", "show", "nightly", "--json", "--ledger", ledger).json
    (account,), (grant,) = shown["accounts"], shown["grants"]
    assert (account["tokens"]["limit"], account["tokens"]["granted"]) == (10_500, 500)
    assert (grant["who"], grant["reason"], grant["amount"]) == ("olga", "launch week", 500)
    text = run("budgets", "show", "nightly", "--ledger", ledger).out
    assert "granted 500 tokens until" in text
    assert "by olga: launch week" in text


def test_a_user_without_a_name_may_grant(run: Run, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert run("budgets", "grant", "nightly", "--tokens", 1, "--ledger", ledger).code == 0
    (grant,) = run("budgets", "show", "nightly", "--json", "--ledger", ledger).json["grants"]
    assert grant["who"] is None


def test_the_command_that_is_printed_works_as_printed(run: Run, ledger: Path) -> None:
    run("budgets", "set", "alice per day", "--usd", "5", "--ledger", ledger)
    said = run("budgets", "freeze", "alice per day", "--ledger", ledger).out
    _, *words = shlex.split(said.replace("\n", " ").split("`")[1])
    assert run(*words, "--ledger", ledger).code == 0


def test_frozen_denies_and_unfrozen_admits(run: Run, ledger: Path) -> None:
    def ask() -> None:
        farthing.configure(ledger=f"sqlite:///{ledger}")
        with farthing.budget("nightly", tokens=10_000), farthing.hold(tokens=1):
            pass
        farthing.reset()

    assert run("budgets", "freeze", "nightly", "--ledger", ledger).code == 0
    assert "frozen" in run("budgets", "list", "--ledger", ledger).out
    with pytest.raises(farthing.BudgetExceeded, match="frozen"):
        ask()
    farthing.reset()
    assert run("budgets", "unfreeze", "nightly", "--ledger", ledger).code == 0
    ask()


def test_remove_asks_first(run: Run, ledger: Path) -> None:
    remove = ("budgets", "remove", "nightly", "--ledger", ledger)
    assert run(*remove, stdin="n\n").code == 1
    assert len(run("budgets", "list", "--json", "--ledger", ledger).json["budgets"]) == 1
    assert run(*remove, stdin="y\n").code == 0
    assert run("budgets", "list", "--json", "--ledger", ledger).json["budgets"] == []


def test_an_empty_ledger_says_what_to_do(run: Run, empty: Path) -> None:
    ran = run("budgets", "list", "--ledger", empty)
    assert ran.code == 0
    assert "farthing budgets set" in ran.out
    assert run("budgets", "list", "--json", "--ledger", empty).json == {"budgets": []}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["set", "b", "--usd", "five"], "--usd"),
        (["set", "b", "--usd", "-1"], "--usd must be at least 0 US dollars, not -1"),
        (["set", "b", "--usd", "nan"], "--usd must be a finite number"),
        (["set", "b", "--tokens", "-5"], "--tokens must be an integer of at least 0, not -5"),
        (["set", "b"], "a budget needs a limit"),
        (["set", "b", "--tokens", "5", "--per", "fortnight"], "per='fortnight'"),
        (["set", "b", "--tokens", "5", "--per", "day Atlantis"], "unknown time zone 'Atlantis'"),
        (["set", "b", "--tokens", "5", "--on-exceed", "explode"], "--on-exceed='explode'"),
        (["set", "b", "--tokens", "5", "--scope", "team"], "--scope takes TAG=VALUE"),
        (["grant", "nightly"], "needs an amount"),
        (["grant", "nightly", "--usd", "1"], "no limit in usd"),
        (["grant", "nightly", "--tokens", "1", "--until", "2020-01-01"], "--until='2020-01-01' is in the past"),
        (
            ["grant", "nightly", "--tokens", "1", "--scope", "user=x"],
            "--scope: budget 'nightly' has no account of its own for each 'user'",
        ),
        (["grant", "nobody", "--tokens", "1"], "no budget is named 'nobody'"),
        (["show", "nobody"], "no budget is named 'nobody'; known: '"),
        (["freeze", "nobody"], "no budget is named 'nobody'"),
        (["remove", "nobody", "--yes"], "no budget is named 'nobody'"),
    ],
)
def test_bad_terms_are_named_and_change_nothing(run: Run, ledger: Path, words: list[str], named: str) -> None:
    before = standing(run, ledger)
    ran = run("budgets", *words, "--ledger", ledger)
    assert ran.code == 2
    assert named in ran.err
    assert "Traceback" not in ran.err
    assert standing(run, ledger) == before


def standing(run: Run, ledger: Path) -> list[dict[str, Any]]:
    """All that is listed, but for the forecast, which goes on with the clock."""
    rows = run("budgets", "list", "--json", "--ledger", ledger).json["budgets"]
    return [{name: value for name, value in row.items() if name != "exhausted_at"} for row in rows]


# -- budgets of a configuration file ---------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "farthing.toml"
    path.write_text('[[budgets]]\nname = "team"\nusd = 5\nper = "day"\n[[budgets]]\nname = "all"\ntokens = 9\n')
    return path


def test_a_file_is_applied_and_owns_its_budgets(run: Run, tmp_path: Path, file: Path) -> None:
    ledger = tmp_path / "ledger.db"
    assert run("budgets", "apply", file, "--dry-run", "--ledger", ledger).code == 1, "a dry run makes no ledger"
    ran = run("budgets", "apply", file, "--ledger", ledger)
    assert ran.out.splitlines() == ["budget 'team': added, $5.00 per day", "budget 'all': added, 9 tokens"]
    assert (
        run("budgets", "apply", file, "--ledger", ledger).out
        == "nothing to change: the ledger has the budgets of this file\n"
    )
    for command in (["set", "team", "--usd", "6"], ["set", "team", "--usd", "6", "--update"], ["remove", "team", "-y"]):
        ran = run("budgets", *command, "--ledger", ledger)
        assert (ran.code, f"'team' is defined by {file}" in ran.err, "change it there" in ran.err) == (2, True, True)
    assert f"Defined by {file}" in run("budgets", "show", "team", "--ledger", ledger).out.replace("\n", "")
    rows = json.loads(run("budgets", "list", "--json", "--ledger", ledger).out)["budgets"]
    assert {row["defined_by"] for row in rows} == {str(file)}
    assert run("budgets", "grant", "team", "--usd", "1", "--ledger", ledger).code == 0


def test_what_a_file_does_not_name_any_more_is_removed(run: Run, tmp_path: Path, file: Path) -> None:
    ledger = tmp_path / "ledger.db"
    run("budgets", "apply", file, "--ledger", ledger)
    file.write_text('[[budgets]]\nname = "all"\ntokens = 10\n')
    wanted = ["budget 'all': tokens 9 → 10", "budget 'team': removed, $5.00 per day"]
    assert run("budgets", "apply", file, "--dry-run", "--ledger", ledger).out.splitlines() == wanted
    found = json.loads(run("budgets", "apply", file, "--json", "--ledger", ledger).out)
    assert (found["removed"], found["changed"][0]["now"]["tokens"]) == (["team"], 10)


def test_a_budget_of_a_file_that_is_gone_can_be_removed_by_force(run: Run, tmp_path: Path, file: Path) -> None:
    ledger = tmp_path / "ledger.db"
    run("budgets", "apply", file, "--ledger", ledger)
    file.unlink()
    assert run("budgets", "remove", "team", "--yes", "--force", "--ledger", ledger).code == 0


def test_commands_that_change_say_so_as_json(run: Run, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    run("budgets", "set", "b", "--tokens", "5", "--ledger", ledger)
    said = [
        json.loads(run("budgets", *command, "--json", "--ledger", ledger).out)
        for command in (["freeze", "b"], ["unfreeze", "b"], ["remove", "b", "--yes"])
    ]
    assert said == [{"name": "b", "frozen": True}, {"name": "b", "frozen": False}, {"name": "b", "removed": True}]


def test_every_term_can_be_set_and_stays_when_another_changes(run: Run, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    terms = {
        "--usd": "5",
        "--on-exceed": "wait",
        "--wait-seconds": "7",
        "--min-output-tokens": "20",
        "--default-output-tokens": "300",
        "--uncapped": "reject",
        "--open-bound": "reject",
        "--alerts": "0.5,1",
    }
    assert run("budgets", "set", "b", *[word for pair in terms.items() for word in pair], "--ledger", ledger).code == 0
    found = json.loads(run("budgets", "set", "b", "--usd", "6", "--update", "--json", "--ledger", ledger).out)
    assert {name for name, value in found["before"].items() if found["now"][name] != value} == {"usd_nano"}
    assert (found["now"]["wait_seconds"], found["now"]["alerts"]) == (7, [5000, 10000])
    ran = run("budgets", "set", "b", "--alerts", "half", "--update", "--ledger", ledger)
    assert (ran.code, "--alerts takes numbers such as 0.5,0.8, not 'half'" in ran.err) == (2, True)


# -- what is ahead ---------------------------------------------------------------------------------------------------


def test_the_list_says_what_was_denied_and_what_is_used_up(run: Run, ledger: Path) -> None:
    ran = run("budgets", "list", "--ledger", ledger)
    assert "denied 1 call in this window" in ran.out
    (row,) = run("budgets", "list", "--json", "--ledger", ledger).json["budgets"]
    assert (row["denied"], row["would_deny"]) == (1, 0)
    farthing.reset()
    farthing.configure(ledger=f"sqlite:///{ledger}")
    with farthing.budget("nightly", tokens=10_000):
        farthing.record({"input_tokens": 20_000}, model="gpt-4o")
    farthing.reset()
    assert "used up" in run("budgets", "show", "nightly", "--ledger", ledger).out


@pytest.mark.parametrize(("option", "text"), [("--usd", "5,00"), ("--usd", "1,5"), ("--tokens", "1,5M")])
def test_a_decimal_comma_is_not_read_as_something_else(run: Run, tmp_path: Path, option: str, text: str) -> None:
    ran = run("budgets", "set", "everything", option, text, "--ledger", tmp_path / "new.db")
    assert ran.code == 2
    assert f"not '{text}'" in ran.err


def test_a_mistake_shows_a_number_as_it_was_typed(run: Run, tmp_path: Path) -> None:
    ran = run("budgets", "set", "b", "--usd", "5", "--alerts", "50", "--ledger", tmp_path / "ledger.db")
    assert (ran.code, "--alerts: 50 must be above 0 and at most 10" in ran.err) == (2, True)
