"""The page that says what is covered says what the code does."""

from __future__ import annotations

from tests.docs.coverage import PAGE, page


def test_the_page_is_as_it_is_generated() -> None:
    text = PAGE.read_text("utf-8")
    assert text == page(text), "run: python -m tests.docs.coverage"
