"""
The tokenisers: one function per vocabulary, text in, number of tokens out.

``quicktok`` first (fastest, and its worst case is mild), ``splintr`` where it cannot be imported (no wheel for this
Python, no numpy), else none: then callers fall back to bytes, an upper bound for these byte-level vocabularies.
Both carry their vocabularies in their wheels; nothing is ever downloaded. They load on first use (0.1 to 1 s).

Text is counted as *ordinary* text: what looks like a special token (``<|endoftext|>``) is some characters that a user
typed, and providers treat it so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .. import forks

Counter = Callable[[str], int]

SURROGATE_TOKENS = 3
"""A lone surrogate is no character. A provider that does not refuse it sees at most its three bytes."""


class Backend(NamedTuple):
    """What counts one vocabulary: ``name`` is the package, or None if none can be used; ``problems`` says why not."""

    encoding: str
    name: str | None
    counter: Counter | None
    problems: tuple[str, ...]


_backends: dict[str, Backend] = {}


def backend(encoding: str) -> Backend:
    """
    The tokeniser for ``o200k_base`` or ``cl100k_base``. Loads it the first time.

    Threads that race here load twice and agree; no lock is held while foreign code is imported.
    """
    found = _backends.get(encoding)
    if found is None:
        with forks.loading():
            found = _backends.setdefault(encoding, _load(encoding))
    return found


def _load(encoding: str) -> Backend:
    problems: list[str] = []
    for name, load in (("quicktok", _quicktok), ("splintr", _splintr)):
        try:
            return Backend(encoding, name, load(encoding), tuple(problems))
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            # A missing package, a wheel that does not fit this machine, or one without this vocabulary: the next one
            # may do, and the reasons are kept for `doctor`.
            problems.append(f"{name}: {error}")
    return Backend(encoding, None, None, tuple(problems))


def _quicktok(encoding: str) -> Counter:
    import quicktok  # type: ignore[import-untyped]

    count: Counter = quicktok.get_encoding(encoding).count
    return count


def _splintr(encoding: str) -> Counter:
    from splintr import Tokenizer

    encode = Tokenizer.from_pretrained(encoding).encode_ordinary
    return lambda text: len(encode(text))


def count_ordinary(text: str, encoding: str) -> int | None:
    """The number of tokens of *text*, exact; None where no tokeniser can be used. Never raises for any ``str``."""
    count = backend(encoding).counter
    if count is None:
        return None
    try:
        return count(text)
    except (TypeError, UnicodeEncodeError):
        # Both refuse lone surrogates, each in its own way.
        clean = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return count(clean) + SURROGATE_TOKENS * sum("\ud800" <= sign <= "\udfff" for sign in text)


def byte_bound(text: str) -> int:
    """The length of the text in UTF-8, above which no byte-level vocabulary can go. Never raises for any ``str``."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
