"""
The price book: from a model's name to its rates, and to where they came from.

A user's registration comes first (exact name, then patterns, the longest first), then the public table. An answer is
kept until the moment at which the table's price may change. A model without a price that can be used raises
:class:`~farthing.errors.UnpricedModel`: an unknown price is never zero.

Safe from any thread. Nothing is locked while the table loads; two threads that race there do the same work twice.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from .. import forks
from ..errors import UnpricedModel
from ..kernel.money import usd_from_nano
from ..kernel.usage import KINDS
from ..kernel.window import datetime_from_ms
from .names import candidates
from .rates import Rates
from .registry import Registered, Usd, registered

if TYPE_CHECKING:
    from .table import PriceTable

_FOREVER = 2**63
_KEPT = 4096
"""Answers kept at most; model names come from requests, so their number has no other bound."""

How = Literal["exact", "normalised", "registered", "unpriced"]
_FOUND: dict[How, str] = {
    "exact": "listed under this name",
    "normalised": "listed under another name",
    "registered": "registered by you",
    "unpriced": "no price is known",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    Where a price comes from. ``str()`` is for people, :meth:`to_dict` for JSON.

    Args:
        model: as it was asked for, with ``provider``.
        how: ``registered``, ``exact`` (listed under this name), ``normalised`` (listed under another way to write it)
            or ``unpriced``.
        matched_model: the listed or registered name; None if unpriced. ``matched_provider`` likewise.
        usd_per_million: the rates for a small call, by kind of token, in USD per million.
        tiers: for each input size (in tokens) above which other rates apply, those rates.
        service_tiers: tiers of service that are priced apart.
        usd_per_request: the fee on each request.
        source: the version string that the ledger records.
        source_date: the newest day (ISO) on which the source says that prices were checked; None if it says none.
        valid_until: the time at which this price may change; None if no change is known.
        notes: what to know about it; for an unpriced model, why.
    """

    model: str
    provider: str | None
    how: How
    matched_model: str | None
    matched_provider: str | None
    usd_per_million: dict[str, Decimal]
    tiers: dict[int, dict[str, Decimal]]
    service_tiers: tuple[str, ...]
    usd_per_request: Decimal
    source: str | None
    source_date: str | None
    valid_until: datetime | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: decimals as strings, times as ISO 8601."""
        return {
            "model": self.model,
            "provider": self.provider,
            "how": self.how,
            "matched_model": self.matched_model,
            "matched_provider": self.matched_provider,
            "usd_per_million": _texts(self.usd_per_million),
            "tiers": {str(above): _texts(rates) for above, rates in self.tiers.items()},
            "service_tiers": list(self.service_tiers),
            "usd_per_request": f"{self.usd_per_request:f}",
            "source": self.source,
            "source_date": self.source_date,
            "valid_until": self.valid_until.isoformat() if self.valid_until else None,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        asked = f"{self.model} ({self.provider})" if self.provider else self.model
        lines = [f"{asked}: {_FOUND[self.how]}"]
        if self.matched_model:
            lines.append(f"  price of        {self.matched_provider}/{self.matched_model}")
            lines += [f"  {kind:<15} {_dollars(usd)} per 1M tokens" for kind, usd in self.usd_per_million.items()]
            for above, rates in self.tiers.items():
                lines.append(f"  above {above:,} input tokens:")
                lines += [f"    {kind:<13} {_dollars(usd)} per 1M tokens" for kind, usd in rates.items()]
            if self.usd_per_request:
                lines.append(f"  each request    ${self.usd_per_request:f}")
            if self.service_tiers:
                lines.append(f"  priced apart    {', '.join(self.service_tiers)}")
            lines.append(f"  source          {self.source}")
            if self.source_date:
                lines.append(f"  checked         {self.source_date}")
            if self.valid_until:
                lines.append(f"  may change      {self.valid_until:%Y-%m-%d %H:%M} UTC")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is known of a model, from one time (inclusive) until another (exclusive)."""

    how: How
    rates: Rates | None
    notes: tuple[str, ...] = ()
    from_ms: int = 0
    until_ms: int = _FOREVER

    @classmethod
    def of(cls, how: How, rates: Rates, notes: tuple[str, ...] = ()) -> _Answer:
        return cls(how, rates, notes, rates.valid_from_ms or 0, rates.valid_until_ms or _FOREVER)


class PriceBook:
    """Prices for one program: the public table below, this program's registrations above."""

    def __init__(self) -> None:
        self._writing = threading.Lock()
        # Both are replaced, never changed in place by a registration, so that readers need no lock. A reader takes the
        # answers first: an answer found from old registrations then lands in answers that nobody asks any more.
        self._registered: tuple[Registered, ...] = ()
        self._answers: dict[tuple[str, str | None], _Answer] = {}
        self._table: PriceTable | None = None

    def rates(self, model: str, *, provider: str | None = None, at_ms: int) -> Rates:
        """
        The prices of *model* at a time (milliseconds since the epoch).

        *provider* is the table's id of the API that is called (``openai``, ``anthropic``, ``google``, ``azure``,
        ``aws``, ``openrouter`` …). Raises UnpricedModel.
        """
        rates = self.find(model, provider, at_ms)
        if rates is None:
            raise UnpricedModel(model, provider=provider)
        return rates

    def find(self, model: str, provider: str | None, at_ms: int) -> Rates | None:
        """The same; None where no price is known."""
        return self._answer(model, provider, at_ms).rates

    def rates_as(self, like: str, *, model: str, at_ms: int) -> Rates:
        """
        For ``unpriced="price_as:<like>"``: the prices of *like* for a *model* without its own, and a version that says
        so. Raises UnpricedModel for *like*.
        """
        base = self.rates(like, at_ms=at_ms)
        return replace(base, version=f"{model} priced as {like}: {base.version}")

    def estimate(
        self,
        model: str,
        *,
        input_tokens: int,
        max_output_tokens: int = 0,
        provider: str | None = None,
        writes_cache: bool = False,
        cache_1h: bool = False,
        service_tier: str | None = None,
        audio: bool = False,
        image: bool = False,
        at_ms: int,
    ) -> Decimal:
        """
        The most that such a call can cost, in USD, rounded up to a nano-dollar: what a budget would hold for it.

        Raises ValueError for a count that is not an integer >= 0, UnpricedModel without a price.
        """
        for field, count in (("input_tokens", input_tokens), ("max_output_tokens", max_output_tokens)):
            if type(count) is not int or count < 0:
                raise ValueError(f"{field} must be an integer of at least 0, not {count!r}")
        bound = self.rates(model, provider=provider, at_ms=at_ms).bound(
            input_tokens=input_tokens,
            writes_cache=writes_cache,
            cache_1h=cache_1h,
            service_tier=service_tier,
            audio=audio,
            image=image,
        )
        return usd_from_nano(bound.at(max_output_tokens))

    def register(
        self,
        model: str,
        *,
        input: Usd,  # noqa: A002 - the word that users know
        output: Usd,
        cached: Usd | None = None,
        cache_write: Usd | None = None,
        cache_write_1h: Usd | None = None,
        per: str = "1M",
    ) -> None:
        """
        Name the price of a model, or of all whose names match a pattern (``my-model-*``), in USD.

        *per* is ``"1M"`` tokens, ``"1K"`` or ``"token"``. It outranks the public table, and an earlier registration of
        the same name. Zero is honoured: it says that the model is free. Raises ValueError naming the field.
        """
        new = registered(
            model,
            input=input,
            output=output,
            cached=cached,
            cache_write=cache_write,
            cache_write_1h=cache_write_1h,
            per=per,
        )
        with self._writing:
            others = (entry for entry in self._registered if entry.pattern != new.pattern)
            # Exact names before patterns, long (more specific) patterns before short ones, later ones before earlier.
            ordered = sorted((new, *others), key=lambda entry: (entry.is_pattern, -len(entry.pattern)))
            self._registered = tuple(ordered)
            self._answers = {}

    def unregister(self, model: str) -> None:
        """Forget a registration, written as it was registered. Raises LookupError if there is none."""
        name = model.strip().lower()
        with self._writing:
            kept = tuple(entry for entry in self._registered if entry.pattern != name)
            if len(kept) == len(self._registered):
                raise LookupError(f"no price is registered for {model!r}")
            self._registered = kept
            self._answers = {}

    def explain(self, model: str, provider: str | None = None, *, at_ms: int) -> Explanation:
        """Where the price of *model* comes from at this time. Never raises for an unpriced model: it says why."""
        answer = self._answer(model, provider, at_ms)
        rates = answer.rates
        thresholds = () if rates is None else tuple(step.above for step in rates.standard if step.above >= 0)
        until = rates.valid_until_ms if rates else None
        listed = answer.how in ("exact", "normalised")
        return Explanation(
            model=model,
            provider=provider,
            how=answer.how,
            matched_model=rates.model if rates else None,
            matched_provider=rates.provider if rates else None,
            usd_per_million=_readable(rates, input_tokens=0) if rates else {},
            tiers={above: _readable(rates, input_tokens=above + 1) for above in thresholds} if rates else {},
            service_tiers=tuple(rates.variants) if rates else (),
            usd_per_request=rates.usd_per_request() if rates else Decimal(0),
            source=rates.version if rates else None,
            source_date=self._loaded().source_date if listed else None,
            valid_until=None if until is None else datetime_from_ms(until),
            notes=answer.notes,
        )

    def check_provider(self, provider: str | None, model: str, *, at_ms: int) -> None:
        """
        For questions that people ask: raise ValueError, naming those that are known, where the table has no such
        provider. A model with a price of its own may be served by anybody.
        """
        if provider is None or self._answer(model, provider, at_ms).how == "registered":
            return
        table = self._loaded()
        if table.knows_provider(provider):
            return
        from difflib import get_close_matches

        near = get_close_matches(provider.strip().lower(), table.providers, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        known = ", ".join(sorted(table.providers))
        raise ValueError(f"provider={provider!r} is not in the price table{meant}; it has: {known}")

    def age_days(self, now_ms: int) -> int | None:
        """How many whole days ago the table was last checked, by its own notes; None if they name no day."""
        checked = self._loaded().source_date
        if checked is None:
            return None
        return (datetime_from_ms(now_ms).date() - date.fromisoformat(checked)).days

    def _answer(self, model: str, provider: str | None, at_ms: int) -> _Answer:
        answers = self._answers
        answer = answers.get((model, provider))
        if answer is None or not answer.from_ms <= at_ms < answer.until_ms:
            answer = self._resolve(model, provider, at_ms)
            if len(answers) >= _KEPT:
                answers.clear()
            answers[model, provider] = answer
        return answer

    def _resolve(self, model: str, provider: str | None, at_ms: int) -> _Answer:
        looked = list(candidates(model, provider))
        entries = self._registered
        for name in dict.fromkeys(candidate.name for candidate in looked):
            for entry in entries:
                if entry.matches(name):
                    return _Answer.of("registered", entry.rates)
        table = self._loaded()
        for place, candidate in enumerate(looked):
            row = table.find(candidate.name, candidate.provider)
            if row is None:
                continue
            found = table.rates(row, at_ms)
            if isinstance(found, str):
                # The first row decides, also when it has no price: another provider's price would be a guess.
                return _Answer("unpriced", None, (f"{row.provider.id}/{row.info.id}: {found}",))
            notes = table.notes(row, at_ms)
            if place and provider and row.provider.id != provider:
                notes = (f"{provider} lists no price of its own for it; this is {row.provider.id}'s", *notes)
            return _Answer.of("normalised" if place else "exact", found, notes)
        return _Answer("unpriced", None, (f"{table.version} does not list it",))

    def _loaded(self) -> PriceTable:
        table = self._table
        if table is None:
            with forks.loading():
                from .table import load

                self._table = table = load()
        return table


def _readable(rates: Rates, *, input_tokens: int) -> dict[str, Decimal]:
    """The rates by kind, without those of special kinds that only repeat the plain ones."""
    every = {kind: rates.usd_per_million(kind, input_tokens=input_tokens) for kind in KINDS}
    plain = {"input", "cached", "cache_write", "cache_write_1h", "output"}
    fallback = {"input_audio": "input", "cached_audio": "cached", "input_image": "input"}
    return {kind: usd for kind, usd in every.items() if kind in plain or usd != every[fallback.get(kind, "output")]}


def _dollars(usd: Decimal) -> str:
    """As price lists write it: at least cents."""
    whole, _, digits = f"{usd:f}".partition(".")
    return f"${whole}.{digits:0<2}"


def _texts(rates: dict[str, Decimal]) -> dict[str, str]:
    return {kind: f"{usd:f}" for kind, usd in rates.items()}
