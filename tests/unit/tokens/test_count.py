"""Counts: exact for OpenAI's vocabularies, never below the factor elsewhere, and no text that makes them raise."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import quicktok  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from splintr import Tokenizer

from farthing import tokens
from farthing.tokens import bound, count, count_text, family_of, segments, vocab
from farthing.tokens.segments import EXACT_UP_TO

CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS, max_size=300)
WILD = st.text(max_size=100) | st.text(st.sampled_from("a\ud800\udfff 😀<|é"), max_size=40)
ENCODINGS = ("o200k_base", "cl100k_base")
SPLINTR = {name: Tokenizer.from_pretrained(name) for name in ENCODINGS}
SPECIAL = ["<|endoftext|>", "<|im_start|>user", "a<|endofprompt|>b", "<|fim_prefix|>", "<|return|>"]


@pytest.fixture
def fresh_vocab(monkeypatch: pytest.MonkeyPatch) -> None:
    """No vocabulary loaded, no count kept."""
    monkeypatch.setattr(vocab, "_backends", {})
    monkeypatch.setattr(segments, "kept", segments._Kept(1 << 20))


@given(TEXT, st.sampled_from(ENCODINGS))
def test_both_tokenisers_agree(text: str, encoding: str) -> None:
    assert quicktok.get_encoding(encoding).count(text) == len(SPLINTR[encoding].encode_ordinary(text))


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4.1-mini", "o200k_base"),
        ("gpt-5", "o200k_base"),
        ("gpt-5.6-sol", "o200k_base"),
        ("gpt-6.1-sol", "o200k_base"),
        ("chatgpt-4o-latest", "o200k_base"),
        ("o1", "o200k_base"),
        ("o4-mini-2025-04-16", "o200k_base"),
        ("codex-mini-latest", "o200k_base"),
        ("gpt-oss-120b", "o200k_base"),
        ("openai/gpt-4o", "o200k_base"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo-2024-04-09", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("ft:gpt-3.5-turbo-0125:org::id", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("text-embedding-ada-002", "cl100k_base"),
    ],
)
def test_openai_models_are_counted_with_their_own_vocabulary(model: str, encoding: str) -> None:
    assert family_of(model).exact
    text = "Überschüsse — 価格 1,234.56 def f(x): return x  \n\n😀"
    assert count_text(text, model) == quicktok.get_encoding(encoding).count(text)


@given(TEXT)
def test_claude_is_never_below_the_densest_text_that_was_measured(text: str) -> None:
    o200k = count_text(text, "gpt-4o")
    for model in ("claude-opus-5-5", "anthropic/claude-sonnet-4.5", "us.anthropic.claude-haiku-4-5-20251001-v1:0"):
        assert count_text(text, model) * 100 >= o200k * 166
        assert count_text(text, model) == -(-o200k * 17 // 10)


@given(TEXT)
def test_other_models_are_never_below_their_yardstick(text: str) -> None:
    digits = sum("0" <= sign <= "9" for sign in text)
    o200k = count_text(text, "gpt-4o")
    assert count_text(text, "gemini-3.8-flash") * 12 >= o200k * 21 + digits * 8
    assert count_text(text, "llama-3.3-70b-versatile") * 2 >= o200k * 7


@given(st.text(st.sampled_from("0123456789 .,"), max_size=200))
def test_gemini_pays_for_every_digit(text: str) -> None:
    # Its vocabulary has no token of two digits.
    assert count_text(text, "gemini-2.5-pro") >= sum("0" <= sign <= "9" for sign in text)


def test_the_factor_is_rounded_up_once_for_the_whole_request() -> None:
    assert count_text("hi", "claude-opus-5-5") == 2
    assert bound(["hi"] * 10, model="claude-opus-5-5") == 17
    assert bound(["hi"] * 10, model="gpt-4o", overhead_tokens=7) == 17


@pytest.mark.parametrize("text", SPECIAL)
def test_what_looks_like_a_special_token_is_ordinary_text(text: str, fresh_vocab: None) -> None:
    for model in ("gpt-4o", "gpt-4", "claude-opus-5-5", None):
        assert count_text(text, model) > 1
    assert count_text(text, "gpt-4o") == len(SPLINTR["o200k_base"].encode_ordinary(text))


@given(WILD)
def test_no_text_makes_a_count_raise(text: str) -> None:
    for model in ("gpt-4o", "gpt-4", "claude-opus-5-5", "gemini-2.5-pro", "unknown", None):
        assert count_text(text, model) >= 0
        assert (count_text(text, model) == 0) == (text == "")
    assert vocab.byte_bound(text) >= len(text)


def test_a_lone_surrogate_counts_as_its_bytes_at_most() -> None:
    assert 3 <= count_text("\ud800", "gpt-4o") <= 6
    assert count_text("hello \udfff world", "gpt-4o") >= count_text("hello  world", "gpt-4o") + 3


@given(TEXT)
def test_bytes_bound_the_tokens(text: str) -> None:
    for encoding in ENCODINGS:
        assert vocab.count_ordinary(text, encoding) <= vocab.byte_bound(text)  # type: ignore[operator]


def test_without_a_tokeniser_bytes_are_the_bound(monkeypatch: pytest.MonkeyPatch, fresh_vocab: None) -> None:
    monkeypatch.setitem(sys.modules, "quicktok", None)
    monkeypatch.setitem(sys.modules, "splintr", None)
    assert count_text("hello", "gpt-4o") == 5
    assert count_text("é\ud800", "claude-opus-5-5") == 5
    found = vocab.backend("o200k_base")
    assert found.name is None
    assert len(found.problems) == 2


def test_splintr_counts_where_quicktok_cannot(monkeypatch: pytest.MonkeyPatch, fresh_vocab: None) -> None:
    before = quicktok.get_encoding("o200k_base").count("budgets — 予算 <|endoftext|> 1234")
    monkeypatch.setitem(sys.modules, "quicktok", None)
    assert count_text("budgets — 予算 <|endoftext|> 1234", "gpt-4o") == before
    assert vocab.backend("o200k_base").name == "splintr"
    assert count_text("a\ud800", "gpt-4o") == count_text("a\ufffd", "gpt-4o") + 3


def test_a_very_long_text_is_taken_at_its_bytes_unless_asked() -> None:
    text = "word " * (EXACT_UP_TO // 5 + 1)
    assert count_text(text, "gpt-4o") == len(text)
    assert count_text(text, "claude-opus-5-5") == len(text)
    exact = count_text(text, "gpt-4o", exact=True)
    assert exact < len(text) // 2
    assert bound([text], model="gpt-4o", exact=True) == exact
    assert bound([text, "hi"], model="gpt-4o") == len(text) + 1


def test_a_single_user_hi_is_eight_tokens() -> None:
    # 3 around the message, 1 for "user", 1 for "hi", 3 to begin the answer.
    assert count([{"role": "user", "content": "hi"}], "gpt-4o") == 8
    assert count([{"role": "user", "content": "hi"}]) == 8
    assert count([{"role": "user", "content": "hi", "name": "al"}], "gpt-4o") == 10
    assert count([], "gpt-4o") == 3
    assert count("hi") == 1


def test_everything_the_model_reads_counts() -> None:
    plain = count([{"role": "user", "content": "hi"}], "gpt-4o")
    parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert count(parts, "gpt-4o") == plain
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
        ],
    }
    alone = count([{"role": "assistant", "content": None}], "gpt-4o")
    wanted = alone + count("weather", "gpt-4o") + count('{"city": "Paris"}', "gpt-4o")
    assert count([called], "gpt-4o") == wanted
    used = [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Paris"}}],
        }
    ]
    assert count(used, "gpt-4o") == wanted


def test_an_image_in_a_message_is_not_counted_as_text() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    with_image = count([{"role": "user", "content": [{"type": "text", "text": "hi"}, picture]}], "gpt-4o")
    assert with_image == 8 + 85 + 8 * 170


def test_sdk_objects_count_as_their_fields() -> None:
    from openai.types.chat import ChatCompletionMessage

    @dataclass
    class Message:
        role: str
        content: str

    assert count([Message("user", "hi")], "gpt-4o") == 8
    answer = ChatCompletionMessage(role="assistant", content="hi")
    assert count([answer], "gpt-4o") == 8


@pytest.mark.parametrize("wrong", [5, None, b"hi", {"role": "user"}, [5], [None]])
def test_what_is_no_message_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="message"):
        count(wrong)


@pytest.fixture
def registered() -> Iterator[None]:
    tokens.register("my-model*", len)
    tokens.register("my-model-words", lambda text: len(text.split()))
    yield
    tokens.unregister("my-model*")
    tokens.unregister("my-model-words")


def test_a_users_counter_counts_its_models(registered: None) -> None:
    assert count_text("a b c", "my-model-7b") == 5
    assert count_text("a b c", "vendor/my-model-words") == 3
    assert bound(["a b", "c"], model="my-model-words", overhead_tokens=4) == 7
    assert count_text("a b c", "other-model") != 5
    assert not family_of("my-model-7b").exact


@pytest.mark.parametrize("result", [-1, 1.5, "3", None, True])
def test_a_users_counter_must_return_a_count(result: Any) -> None:
    tokens.register("broken", lambda _: result)
    try:
        with pytest.raises(ValueError, match="'broken' must return an integer of at least 0"):
            count_text("x", "broken")
    finally:
        tokens.unregister("broken")


def test_a_wrong_registration_names_its_argument() -> None:
    for pattern in ("", " ", None, 5):
        with pytest.raises(ValueError, match="pattern"):
            tokens.register(pattern, len)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count"):
        tokens.register("x", 5)  # type: ignore[arg-type]
    with pytest.raises(LookupError, match="never-registered"):
        tokens.unregister("never-registered")


def test_a_segment_is_counted_once(monkeypatch: pytest.MonkeyPatch, fresh_vocab: None) -> None:
    counted: list[str] = []

    def counter(text: str, encoding: str) -> int:
        counted.append(text)
        return len(text)

    monkeypatch.setattr(segments, "count_ordinary", counter)
    history = "long " * 100
    for _ in range(3):
        bound([history, "short"], model="gpt-4o")
    assert counted == [history, "short"]
    bound([history], model="gpt-4")  # another vocabulary, another count
    assert counted.count(history) == 2


def test_kept_texts_weigh_no_more_than_their_limit(monkeypatch: pytest.MonkeyPatch, fresh_vocab: None) -> None:
    monkeypatch.setattr(segments, "kept", segments._Kept(10_000))
    for number in range(100):
        bound([f"{number} " * 300], model="gpt-4o")
        assert segments.kept.weight <= 10_000
    bound(["é" * 20_000], model="gpt-4o")  # heavier than all that may be kept
    assert segments.kept.weight <= 10_000
    for number in range(1_000):
        bound([str(number)], model="gpt-4o")
    assert 0 < len(segments.kept.young) + len(segments.kept.old) <= 40, "short texts have a weight too"


def test_what_is_asked_for_all_the_time_is_not_dropped(monkeypatch: pytest.MonkeyPatch, fresh_vocab: None) -> None:
    counted: list[str] = []

    def counter(text: str, encoding: str) -> int:
        counted.append(text)
        return len(text)

    monkeypatch.setattr(segments, "count_ordinary", counter)
    monkeypatch.setattr(segments, "kept", segments._Kept(10_000))
    for number in range(200):
        bound(["the instructions", str(number)], model="gpt-4o")
    assert counted.count("the instructions") == 1
    bound(["0"], model="gpt-4o")
    assert counted.count("0") == 2, "dropped long ago"


def test_many_threads_count_alike(fresh_vocab: None) -> None:
    text = "The same text, counted by many threads at once. " * 20
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(bound([text], model="gpt-4o"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8


def test_counting_works_with_every_socket_refused_and_loads_nothing_on_import() -> None:
    program = """
import sys

def no_network(event, args):
    if event.startswith("socket."):
        raise SystemExit("the network was used: " + event)

sys.addaudithook(no_network)
from farthing import tokens
heavy = {"quicktok", "splintr", "numpy", "tomllib"} & set(sys.modules)
assert not heavy, heavy
print(tokens.count("hi", "gpt-4o"), tokens.count("hi", "gpt-4"), tokens.facts_of("gpt-4o").max_output)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "1", "16384"]
