"""
The tables of docs/concepts/coverage.md, made from the reviewed rows of the code: routes and packages.

``python -m tests.docs.coverage`` writes them into the page; a test holds the page against them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from farthing.sdk.known import PACKAGES
from farthing.wire.routes import ROUTES, Row

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "coverage.md"
BEGIN, END = "<!-- generated: python -m tests.docs.coverage -->\n", "<!-- end of what is generated -->\n"
_NAMES = {"openai": "OpenAI", "anthropic": "Anthropic", "google": "Gemini, Vertex AI", "cohere": "Cohere"}
_VERDICTS = ("metered", "unmetered", "free")


def tables() -> str:
    """All of what is generated, as Markdown."""
    return "\n".join([*_packages(), "", *_routes(), ""])


def page(text: str) -> str:
    """The page with its generated part as it must be."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.split(END)[1]


def _packages() -> Iterator[str]:
    yield "| SDK or framework | governed | how |"
    yield "|---|---|---|"
    for package in PACKAGES:
        yield f"| {package.name} | {package.governed} | {package.how} |"


def _routes() -> Iterator[str]:
    for provider, name in _NAMES.items():
        yield f"### {name}"
        yield ""
        yield "| verdict | why | endpoints |"
        yield "|---|---|---|"
        rows = [row for row in ROUTES if row.provider == provider]
        for verdict in _VERDICTS:
            yield from _verdict(verdict, [row for row in rows if row.verdict == verdict])
        yield ""


def _verdict(verdict: str, rows: list[Row]) -> Iterator[str]:
    by_note: dict[str, list[Row]] = {}
    for row in rows:
        by_note.setdefault(row.note, []).append(row)
    for note, alike in by_note.items():
        by_methods: dict[str, list[str]] = {}
        for row in alike:
            by_methods.setdefault(row.methods, []).append(f"`{row.path}`")
        places = "; ".join(f"{methods.replace(' ', ', ')} {', '.join(paths)}" for methods, paths in by_methods.items())
        yield f"| {verdict} | {f'`{note}`' if verdict == 'metered' else note} | {places} |"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
