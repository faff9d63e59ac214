"""A tokenizer that counts words, so that tests know every figure, and a prompt with its figure."""

from __future__ import annotations

from typing import Any


def count_words(text: str, model: str) -> int:
    """A token is a word."""
    return len(text.split())


HI: Any = [{"role": "user", "content": "Hi there"}]
HI_TOKENS = 9
"""Three for the message, one for its role, two words, three to prime the answer."""
TEN_WORDS = "a small coin is still money and every one of"
"""What a reply shows that says nothing."""
