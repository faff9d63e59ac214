"""
Which vocabulary counts for a model, and by which factor where it is not the model's own.

OpenAI's vocabularies are public, so their counts are exact. For the others o200k is a yardstick, and the factor makes
the count an upper estimate. Measured in November 2026 against public vocabularies, on prose in ten languages, code,
JSON, base64, hexadecimal, digits, emoji, random characters and whitespace (tokens over o200k's tokens):

- Claude has no public vocabulary since version 3; the densest text measured from billed usage was 1.66: 17/10.
- Gemini shares Gemma's vocabulary, which splits every digit off (o200k takes three at a time): 2.47 on digits alone,
  at most 1.67 on everything else (whitespace; code 1.10, JSON without its digits below that). So 7/4, and two thirds
  of a token for each digit.
- Any other model: the vocabularies in wide use went up to 3.49 (Hindi, Llama 2), 3.39 (GLM-4, Phi-4), 3.14 (Qwen 3),
  2.47 (digits, Mistral): 7/2. It is dear; ``register`` names a better counter for a model.

A ledger that has seen real usage follows the largest ratio that it saw: :mod:`.learning`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ..kernel.scope import check_model
from .names import plain_name

O200K = "o200k_base"
CL100K = "cl100k_base"


@dataclass(frozen=True, slots=True)
class Family:
    """How text is counted for a model: ``ceil(count × num / den)``, and for ``digits`` two thirds more for each."""

    name: str
    encoding: str
    num: int = 1
    den: int = 1
    digits: bool = False
    counter: Callable[[str], int] | None = None
    """A user's own counter, instead of the vocabulary; its result is taken as it is."""
    extra: int = 0
    """Tokens on top of every request, for what a provider brings in by itself."""
    exact: bool = field(init=False)
    """The vocabulary is the model's own."""
    guessed: bool = field(init=False)
    """The factor is a guess, which billed usage may teach better: neither a public vocabulary nor a user's counter."""

    def __post_init__(self) -> None:
        own = (self.num, self.den) == (1, 1)
        object.__setattr__(self, "exact", self.counter is None and own)
        object.__setattr__(self, "guessed", self.counter is None and not own)


OPENAI = Family("openai", O200K)
OPENAI_OLD = Family("openai-cl100k", CL100K)
CLAUDE = Family("claude", O200K, 17, 10)
GEMINI = Family("gemini", O200K, 7, 4, digits=True)
UNKNOWN = Family("unknown", O200K, 7, 2)

_RULES: tuple[tuple[re.Pattern[str], Family], ...] = (
    (re.compile(r"claude"), CLAUDE),
    (re.compile(r"^(gemini|gemma|learnlm)"), GEMINI),
    (
        re.compile(r"^(gpt-(4o|4\.1|4\.5|[5-9]|\d\d|oss|audio|realtime|image|chat)|chatgpt|codex|computer-use|o\d)"),
        OPENAI,
    ),
    (re.compile(r"^(gpt-(4|3\.5)(-|$)|text-embedding-(3|ada-002)|davinci-002|babbage-002)"), OPENAI_OLD),
)
_KEPT = 4096
"""Names remembered at most: they come from requests."""


class _Families:
    """
    The families of the models seen so far, and the users' counters.

    Both fields are replaced, never changed in place by a registration, so that readers need no lock: a reader takes
    ``known`` first, and what it finds from old registrations lands in a dictionary that nobody asks any more.
    """

    def __init__(self) -> None:
        self._writing = threading.Lock()
        self._registered: tuple[tuple[str, Family], ...] = ()
        self._known: dict[str | None, Family] = {}

    def of(self, model: str | None) -> Family:
        """The family of a model; with None the yardstick itself, o200k."""
        known = self._known
        family = known.get(model)
        if family is None:
            family = self._find(model)
            if len(known) >= _KEPT:
                known.clear()
            known[model] = family
        return family

    def _find(self, model: str | None) -> Family:
        if model is None:
            return OPENAI
        check_model(model)
        name = plain_name(model)
        asked = model.strip().lower()
        for pattern, family in self._registered:
            if fnmatchcase(asked, pattern) or fnmatchcase(name, pattern):
                return family
        return next((family for rule, family in _RULES if rule.search(name)), UNKNOWN)

    def add(self, pattern: str, family: Family) -> None:
        with self._writing:
            others = (entry for entry in self._registered if entry[0] != pattern)
            ordered = sorted(((pattern, family), *others), key=lambda entry: -len(entry[0]))
            self._registered = tuple(ordered)
            self._known = {}

    def remove(self, pattern: str) -> bool:
        with self._writing:
            kept = tuple(entry for entry in self._registered if entry[0] != pattern)
            gone = len(kept) < len(self._registered)
            self._registered = kept
            self._known = {}
            return gone


_families = _Families()
family_of = _families.of


def register(pattern: str, count: Callable[[str], int]) -> None:
    """
    Count the text of all models whose name matches *pattern* (``my-model*``) with a function of your own.

    *count* takes a string and returns its tokens, an integer >= 0 (checked at each call). The latest registration of a
    pattern counts; among several that match, the longest. Raises ValueError naming the argument.
    """
    if not isinstance(pattern, str) or not pattern.strip():
        raise ValueError(f"pattern must be a name or a pattern, not {pattern!r}")
    if not callable(count):
        raise ValueError(f"count must be a function of one string, not {count!r}")
    key = pattern.strip().lower()
    _families.add(key, Family(f"registered {key}", O200K, counter=_checked(key, count)))


def unregister(pattern: str) -> None:
    """Forget a registered counter. Raises LookupError if there is none for this pattern."""
    if not _families.remove(pattern.strip().lower()):
        raise LookupError(f"no counter is registered for {pattern!r}")


def _checked(pattern: str, count: Callable[[str], int]) -> Callable[[str], int]:
    def checked(text: str) -> int:
        tokens = count(text)
        if type(tokens) is not int or tokens < 0:
            raise ValueError(
                f"the counter registered for {pattern!r} must return an integer of at least 0, not {tokens!r}"
            )
        return tokens

    return checked
