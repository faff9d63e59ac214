"""
The public price table: ``genai-prices``, read into :class:`~farthing.prices.rates.Rates`.

It is imported on first use (0.3 to 0.8 s), never over the network. It prices by *unit*; a kind of token of ours costs
the most specific unit that the table prices for the model and that contains it, which is also how the table's own
calculation shares tokens out. Where the table says nothing about cache writes they are not taken to be free: Claude
writes cost 1.25 times input (2 times for an hour), as Anthropic documents; elsewhere they cost as much as input, and
writes for long (OpenAI's 12 hours) twice as much as the table's dearer write, as OpenAI documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..kernel.window import datetime_from_ms, ms_from_datetime
from .rates import STANDARD_TIERS, Rates, Tier, make_rates

_CHAINS: dict[str, tuple[str, ...]] = {
    "input": ("input_text_mtok", "input_mtok"),
    "cached": ("cache_text_read_mtok", "cache_read_mtok", "input_text_mtok", "input_mtok"),
    "cache_write": ("cache_write_5m_mtok", "cache_text_write_mtok", "cache_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok",),
    "input_audio": ("input_audio_mtok", "input_mtok"),
    "cached_audio": ("cache_audio_read_mtok", "input_audio_mtok", "cache_read_mtok", "input_mtok"),
    "input_image": ("input_image_mtok", "input_mtok"),
    "output": ("output_text_mtok", "output_mtok"),
    "reasoning": ("output_text_reasoning_mtok", "output_reasoning_mtok", "output_text_mtok", "output_mtok"),
    "output_audio": ("output_audio_mtok", "output_mtok"),
    "output_image": ("output_image_mtok", "output_mtok"),
}
"""For every kind, the table's keys from the most specific to the most general; the first one present is the rate."""

_COUNTED = frozenset(key for chain in _CHAINS.values() for key in chain) | {"requests_kcount"}
_REGIONAL_PREMIUM = Fraction(11, 10)
"""On all kinds of tokens (platform.claude.com, "Data residency", and Claude Platform on AWS, 2026-11)."""
_CHECKED_ON = re.compile(r"(?:verified|checked|as of|released)(?: on)? (20\d\d-\d\d-\d\d)", re.IGNORECASE)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of the table: its provider and model objects, ours to read and not to change."""

    provider: Any
    info: Any


VENDORS = ("openai", "anthropic", "google", "mistral", "cohere")
"""Those whose models are asked for by name alone, by the SDKs that are known here."""


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The table as it was at first use; a snapshot that is swapped later in the library is not picked up."""

    snapshot: Any
    version: str
    """``genai-prices 0.2.3``."""
    source_date: str | None
    """The newest day (ISO) on which the table's own notes say that a price was checked; None if they name none."""

    def find(self, name: str, provider: str | None) -> Listed | None:
        """The row for *name* in *provider*'s table, or, with None, in that of the provider the name belongs to."""
        try:
            return Listed(*self.snapshot.find_provider_model(name, None, provider, None))
        except LookupError:
            return self._at_its_vendor(name) if provider is None else None

    def _at_its_vendor(self, name: str) -> Listed | None:
        """The row of a vendor that has a model of exactly this name: not every name tells its vendor by its form."""
        by_id = {of.id: of for of in self.snapshot.providers}
        rows = (Listed(by_id[of], info) for of in VENDORS if of in by_id for info in by_id[of].models)
        return next((row for row in rows if row.info.id in (name, name.removesuffix("-latest"))), None)

    @property
    def providers(self) -> tuple[str, ...]:
        """The ids of those that it lists, in its order."""
        return tuple(of.id for of in self.snapshot.providers)

    def knows_provider(self, provider: str) -> bool:
        """Whether it lists this provider, under its id or another name that the table takes for it."""
        try:
            self.snapshot.find_provider(None, provider, None)
        except LookupError:
            return False
        return True

    def rates(self, row: Listed, at_ms: int) -> Rates | str:
        """
        The prices of a row at a time (milliseconds since the epoch), or the reason why it has none that can be used:
        an absent or zero price for input or output is not a price, whatever the table's own calculation makes of it.
        """
        at = datetime_from_ms(at_ms)
        prices = _stated(row.info.get_prices(at))
        if reason := _unusable(row, prices):
            return reason
        since, until = _validity(row.info, at)
        standard = _tiers(row, prices)
        variants = {name: _tiers(row, _stated(listed)) for name, listed in _variants(row, at)}
        return make_rates(
            provider=row.provider.id,
            model=row.info.id,
            version=self._version_of(row, since),
            standard=standard,
            variants={**variants, **_regional(row, {"": standard, **variants})},
            fee=Fraction(prices.get("requests_kcount", Decimal(0))) * 1_000_000,
            marked_writes=_is_claude(row),
            valid_from_ms=None if since is None else ms_from_datetime(since),
            valid_until_ms=None if until is None else ms_from_datetime(until),
        )

    def notes(self, row: Listed, at_ms: int) -> tuple[str, ...]:
        """What a reader of the price should know: what it leaves out, and what the table's authors say about it."""
        at = datetime_from_ms(at_ms)
        prices = _stated(row.info.get_prices(at))
        apart = sorted(key for key in prices if key not in _COUNTED and not key.startswith("cache_"))
        notes = [f"also priced by the source, not counted here: {', '.join(apart)}"] if apart else []
        if row.info.price_comments:
            notes.append(row.info.price_comments)
        return tuple(notes)

    def _version_of(self, row: Listed, since: datetime | None) -> str:
        started = f" from {since:%Y-%m-%dT%H:%MZ}" if since else ""
        return f"{self.version} {row.provider.id}/{row.info.id}{started}"


def load() -> PriceTable:
    """Import the table. Slow the first time; two threads that race here both get the same snapshot."""
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    updated = f"+{snapshot.timestamp:%Y-%m-%d}" if snapshot.from_auto_update else ""
    return PriceTable(snapshot, f"genai-prices {genai_prices.__version__}{updated}", _newest_check(snapshot))


def _newest_check(snapshot: Any) -> str | None:
    comments = (
        comment
        for provider in snapshot.providers
        for comment in (provider.price_comments, *(model.price_comments for model in provider.models))
        if comment
    )
    return max((day for comment in comments for day in _CHECKED_ON.findall(comment)), default=None)


def _stated(model_price: Any) -> dict[str, Any]:
    return {key: value for key, value in vars(model_price).items() if value is not None and not key.startswith("_")}


def _is_claude(row: Listed) -> bool:
    return "claude" in row.info.id.lower()


def _makes_no_output(row: Listed) -> bool:
    return "embed" in row.info.id.lower() or row.provider.id == "voyageai"


def _unusable(row: Listed, prices: dict[str, Any]) -> str | None:
    if not any(key.endswith("_mtok") for key in prices):
        units = ", ".join(sorted(prices)) or "nothing"
        return f"the source prices {units} for it, and no tokens"
    for word, kind in (("input", "input"), ("output", "output")):
        value = next((prices[key] for key in _CHAINS[kind] if key in prices), None)
        if value is None and not (kind == "output" and _makes_no_output(row)):
            return f"the source states no price for its {word} tokens"
        if value is not None and min(_at_tier(value, above) for above in _thresholds({kind: value})) == 0:
            return f"the source states a price of zero for its {word} tokens; register it to confirm that it is free"
    return None


def _thresholds(prices: dict[str, Any]) -> list[int]:
    starts = {tier.start for value in prices.values() for tier in getattr(value, "tiers", ())}
    return [-1, *sorted(starts)]


def _at_tier(value: Any, above: int) -> Decimal:
    """The price of a unit for an input just above a threshold. A tier begins above its start, as in the source."""
    price: Decimal = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):
        if above >= tier.start:
            price = tier.price
    return price


def _tiers(row: Listed, prices: dict[str, Any]) -> list[Tier]:
    return [Tier(above, _kind_rates(row, prices, above)) for above in _thresholds(prices)]


def _kind_rates(row: Listed, prices: dict[str, Any], above: int) -> dict[str, Fraction]:
    def rate(kind: str) -> Fraction | None:
        key = next((key for key in _CHAINS[kind] if key in prices), None)
        # USD per million tokens, times 1e9 nano-dollars, over 1e6 tokens.
        return None if key is None else Fraction(_at_tier(prices[key], above)) * 1000

    rates = {kind: found for kind in _CHAINS if (found := rate(kind)) is not None}
    # Models without an output price make no output; were one to report some, it must not be free.
    for kind in ("output", "reasoning", "output_audio", "output_image"):
        rates.setdefault(kind, rates["input"])
    claude = _is_claude(row)
    rates.setdefault("cache_write", rates["input"] * Fraction(5, 4) if claude else rates["input"])
    # Where writing costs more than reading afresh, keeping it for long costs more still: Claude's hour is twice input,
    # the 12 hours of OpenAI's are twice its ordinary write ($2.50 beside $1.25 for gpt-6.1-terra).
    dear = rates["cache_write"] > rates["input"]
    long = rates["input"] * 2 if claude else rates["cache_write"] * (2 if dear else 1)
    rates.setdefault("cache_write_1h", long)
    return rates


def _variants(row: Listed, at: datetime) -> Iterator[tuple[str, Any]]:
    """Tiers of service that the row prices apart, by the one word that selects them. As in the source, a model that
    is only borrowed from another provider's table has none."""
    if not any(row.info is own for own in row.provider.models):
        return
    wanted = {"service_tier", "processing", "speed"}
    for variant in row.info.price_variants or ():
        ((key, value), *more) = variant.when.items()
        if (
            not more
            and key in wanted
            and value not in STANDARD_TIERS
            and (variant.constraint is None or variant.constraint.active(at))
        ):
            yield value, row.info.get_prices(at, {key: value})


def _regional(row: Listed, tiers: dict[str, list[Tier]]) -> dict[str, list[Tier]]:
    """What Anthropic asks where inference is bound to a region (``inference_geo``): the source says nothing of it."""
    if row.provider.id != "anthropic":
        return {}
    return {
        f"{name} regional".lstrip(): [
            Tier(above, {kind: rate * _REGIONAL_PREMIUM for kind, rate in rates.items()}) for above, rates in schedule
        ]
        for name, schedule in tiers.items()
        if name in ("", "fast")
    }


def _validity(info: Any, at: datetime) -> tuple[datetime | None, datetime | None]:
    """The last moment up to *at*, and the first one after it, at which a price of this model may change."""
    conditional = info.prices if isinstance(info.prices, list) else []
    constraints = [item.constraint for item in (*conditional, *(info.price_variants or ())) if item.constraint]
    moments = [moment for constraint in constraints for moment in _moments(constraint, at)]
    return max((m for m in moments if m <= at), default=None), min((m for m in moments if m > at), default=None)


def _moments(constraint: Any, at: datetime) -> list[datetime]:
    if hasattr(constraint, "start_date"):
        return [datetime.combine(constraint.start_date, time(), UTC)]
    midnight = datetime.combine(at.date(), time(), UTC)
    turns = [_since_midnight(constraint.start_time), _since_midnight(constraint.end_time)]
    return [midnight + turn + _DAY * day for turn in turns for day in (-1, 0, 1)]


def _since_midnight(clock: time) -> timedelta:
    """A time of day (UTC where it has no zone) as the time since midnight UTC."""
    offset = clock.utcoffset() or timedelta()
    return (timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second) - offset) % _DAY
