"""``farthing estimate`` and ``farthing prices``: the library's figures, offline."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

import farthing
from farthing.kernel.ratios import Ratio, RatioKey
from farthing.stores import open_store
from tests.unit.cli.conftest import Run


def test_estimate_is_the_librarys(run: Run) -> None:
    answer = run("estimate", "gpt-4o", "--text", "Hello there", "--max-output-tokens", 500, "--json").json
    messages = [{"role": "user", "content": "Hello there"}]
    assert Decimal(answer["usd"]) == farthing.estimate("gpt-4o", messages, max_output_tokens=500)
    assert answer["input_tokens_exact"] is True
    assert answer["price"]["how"] == "exact"


def test_estimate_of_a_number_of_tokens(run: Run) -> None:
    words = ("--input-tokens", 1_000_000, "--max-output-tokens", 100_000)
    ran = run("estimate", "gpt-4o", *words)
    assert ran.code == 0
    assert "$3.50" in ran.out  # $2.50 and a tenth of $10.00
    assert run("estimate", "gpt-4o", *words, "--json").json["usd"] == "3.5"


def test_estimate_of_a_file_and_of_standard_input(run: Run, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("What is a farthing?", "utf-8")
    from_file = run("estimate", "gpt-4o", "--file", prompt, "--json").json
    piped = run("estimate", "gpt-4o", "--file", "-", "--json", stdin="What is a farthing?").json
    assert from_file == piped
    assert from_file["input_tokens"] > 5


def test_an_upper_estimate_says_so(run: Run) -> None:
    assert "an upper estimate" in run("estimate", "claude-sonnet-4-5", "--text", "Hello").out
    assert run("estimate", "claude-sonnet-4-5", "--text", "Hello", "--json").json["input_tokens_exact"] is False


def test_what_a_ledger_has_learned_is_counted_by_and_shown(run: Run, tmp_path: Path) -> None:
    path, model = tmp_path / "ledger.db", "claude-sonnet-4-5"
    store = open_store(f"sqlite:///{path}")
    store.add_ratios({RatioKey(model, "anthropic.messages"): Ratio(2_000, 1_204, 30)}).result()
    store.close()
    words = ("estimate", model, "--text", "Hello there " * 100)
    before = run(*words, "--json", "--ledger", tmp_path / "none.db").json
    after = run(*words, "--json", "--ledger", path).json
    assert before["learned"] is None
    assert after["learned"] == {"ratio": "2", "calls": 1_204, "extra_tokens": 30, "factor": "2"}
    assert after["input_tokens"] > before["input_tokens"] * 2 / 1.7
    says = "2 tokens for each of o200k (at most 2 seen in 1,204 calls), and 30 on top of each call"
    for command in (words, ("prices", "explain", model), ("doctor",)):
        assert says in " ".join(run(*command, "--ledger", path).out.split())
    assert run("prices", "explain", model, "--json", "--ledger", path).json["learned"] == after["learned"]
    assert not (tmp_path / "none.db").exists()


def test_a_ledger_that_cannot_be_read_does_not_keep_from_estimating(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"not a ledger" * 1_000)
    ran = run("estimate", "claude-sonnet-4-5", "--text", "Hello", "--ledger", tmp_path / "broken.db")
    assert ran.code == 0
    assert "is left out" in ran.err


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["gpt-4o", "--text", "a", "--input-tokens", "1"], 2, "one of"),
        (["gpt-4o", "--input-tokens", "-1"], 2, "--input-tokens must be an integer of at least 0"),
        (["gpt-4o", "--max-output-tokens", "-1"], 2, "--max-output-tokens must be an integer of at least 0"),
        (["gpt-4o", "--provider", "opnai"], 2, "--provider='opnai' is not in the price table (did you mean openai?)"),
        (["no-such-model", "--input-tokens", "1"], 1, "no price is known for model 'no-such-model'"),
    ],
)
def test_what_cannot_be_estimated_is_said(run: Run, words: list[str], code: int, named: str) -> None:
    ran = run("estimate", *words)
    assert ran.code == code
    assert named in ran.err


def test_explain_names_the_source(run: Run) -> None:
    ran = run("prices", "explain", "gpt-4o")
    assert ran.code == 0
    assert "genai-prices" in ran.out
    assert run("prices", "explain", "gpt-4o", "--json").json == {
        **farthing.prices.explain("gpt-4o").to_dict(),
        "learned": None,
    }


def test_a_model_without_a_price_is_explained_and_fails(run: Run) -> None:
    ran = run("prices", "explain", "no-such-model")
    assert ran.code == 1
    assert "no price is known" in ran.out
    assert "prices.register" in ran.out
    assert run("prices", "explain", "no-such-model", "--json").json["how"] == "unpriced"


def test_list_finds_by_part_pattern_and_provider(run: Run) -> None:
    rows = run("prices", "list", "gpt-4o", "--provider", "openai", "--json").json["prices"]
    by_name = {row["model"]: row for row in rows}
    assert by_name["gpt-4o"]["usd_per_million"]["output"] == "10"
    assert "gpt-4o-mini" in by_name
    assert all("gpt-4o" in name for name in by_name)
    (only,) = run("prices", "list", "gpt-4o?mini", "--provider", "openai", "--json").json["prices"]
    assert only["model"] == "gpt-4o-mini"
    ran = run("prices", "list", "gpt-4o-mini", "--provider", "openai")
    assert "$0.15" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_whole_list_says_what_has_no_price(run: Run) -> None:
    rows = run("prices", "list", "--json").json["prices"]
    assert len(rows) > 1_000
    for row in rows:
        rates = row["usd_per_million"].values()
        assert (row["reason"] is None) == all(rate is not None and Decimal(rate) >= 0 for rate in rates)
    assert any(row["reason"] for row in rows)


def test_no_match_fails(run: Run) -> None:
    ran = run("prices", "list", "no-such-model")
    assert ran.code == 1
    assert "no model" in ran.err


def test_a_provider_that_nobody_knows_is_said_with_those_that_are(run: Run, empty: Path) -> None:
    """It used to be overlooked, and the price was another provider's."""
    for words in (
        ("estimate", "gpt-4o", "--text", "Hi"),
        ("explain", "gpt-4o", "--text", "Hi", "--ledger", empty),
        ("prices", "explain", "gpt-4o"),
        ("prices", "list"),
    ):
        ran = run(*words, "--provider", "nope")
        assert ran.code == 2, words
        assert "--provider='nope' is not in the price table" in ran.err
        assert "anthropic, " in ran.err
        assert run(*words, "--provider", "openai").code == 0


def test_a_model_with_a_price_of_its_own_may_be_anywhere(run: Run) -> None:
    farthing.prices.register("our-llama", input=1, output=1)
    try:
        assert run("estimate", "our-llama", "--input-tokens", "1", "--provider", "our-rack").code == 0
        assert farthing.estimate("our-llama", "Hi", provider="our-rack") > 0
    finally:
        farthing.prices.unregister("our-llama")
    with pytest.raises(ValueError, match="provider='our-rack' is not in the price table"):
        farthing.estimate("gpt-4o", "Hi", provider="our-rack")
