"""
What one model costs, as exact integers: token counts in, nano-dollars out.

A rate is a numerator over one common denominator per model, so that the hot path multiplies and adds integers and
rounds once. ``reasoning`` is a part of ``output``, so its entry is the *difference* between the two (zero for all but a
few models): a cost is then a plain dot product over the kinds of :class:`~farthing.kernel.usage.Usage`.

Tiers follow the table: the size of the *whole* input (cached tokens included) picks one tier, and its rates apply to
every token of the call, output too. A tier begins *above* its threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from math import lcm
from operator import mul
from typing import NamedTuple

from ..kernel.balances import bare
from ..kernel.money import div_half_up
from ..kernel.plan import Formula
from ..kernel.usage import KINDS, Usage

_INDEX = {kind: place for place, kind in enumerate(KINDS)}
_OUTPUT = _INDEX["output"]
_REASONING = _INDEX["reasoning"]

STANDARD_TIERS = (None, "", "default", "standard", "standard_only")
"""What providers call the tier that is billed at list price. None (the request says nothing) counts as this one: the
default of every provider, unless a project setting of the provider's says otherwise, which no request shows."""


class Step(NamedTuple):
    """The rates of one tier: they apply to a call whose whole input is more than ``above`` tokens."""

    above: int
    nums: tuple[int, ...]
    """Numerators over the model's denominator, in the order of ``KINDS``."""


Schedule = tuple[Step, ...]
"""Tiers in ascending order; the first one applies from nothing on (``above = -1``)."""


_PEAKS_KEPT = 256
"""Kinds of calls that a model's dearest rates are kept for: a request may call its tier of service what it likes."""


_Peaks = tuple[tuple[int, int, int], ...]
"""The dearest rates that a call of some kind may be billed at: above how many tokens of input, for input, for output;
the largest inputs first. (Plain tuples, since named ones take ten times as long to unpack.)"""


@dataclass(frozen=True, slots=True)
class Rates:
    """
    The prices of one model at one time. Made by :func:`make_rates`; immutable, so a hold can pin it.

    ``provider`` and ``model`` are those of the price that was matched; ``version`` says where it came from and is
    written into the ledger. ``standard`` is the list price, ``variants`` the tiers of service that the source prices
    apart (``priority``, ``flex``, ``batch`` …). All numerators are over ``den``; ``fee`` is per request.
    The prices hold from ``valid_from_ms`` (inclusive) until ``valid_until_ms`` (exclusive); None means without end.
    """

    provider: str
    model: str
    version: str
    den: int
    standard: Schedule
    variants: Mapping[str, Schedule]
    fee: int = 0
    marked_writes: bool = False
    """Input is written to the cache only where the request marks it (Claude). Elsewhere the provider decides."""
    valid_from_ms: int | None = None
    valid_until_ms: int | None = None
    _peaks: dict[tuple[bool, bool, str | None, bool, bool], _Peaks] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def cost_nano(self, usage: Usage, service_tier: str | None = None) -> int:
        """
        What *usage* costs, in nano-dollars: exact, rounded half up once.

        *service_tier* is the tier that the provider says it used. One that the source does not price apart costs the
        standard rates.
        """
        schedule = self.variants.get(service_tier, self.standard) if service_tier else self.standard
        nums = schedule[0].nums
        if len(schedule) > 1:
            input_tokens = usage.input_tokens
            for step in schedule:
                if input_tokens > step.above:
                    nums = step.nums
        return div_half_up(sum(map(mul, usage, nums)) + self.fee, self.den)

    def as_dear_as(
        self,
        usage: Usage,
        *,
        untold_input: bool,
        untold_output: bool,
        writes_cache: bool,
        cache_1h: bool,
        service_tier: str | None,
        audio: bool,
        image: bool,
    ) -> Usage:
        """
        A usage whose input or output no provider told, so that it is all plain text here, as the dearest kinds that it
        may be billed as: what was held for it. The other arguments as for :meth:`bound`.
        """
        inputs, outputs = self._kinds(writes_cache, cache_1h, audio, image)
        schedule = self.variants.get(service_tier, self.standard) if service_tier else self.standard
        nums = [step.nums for step in schedule if usage.input_tokens > step.above][-1]
        if untold_input:
            dearest = max(inputs, key=lambda kind: nums[_INDEX[kind]])
            usage = usage._replace(**{"input": 0, dearest: usage.input})
        if untold_output:
            dearest = max(outputs, key=lambda kind: nums[_INDEX[kind]])
            if dearest != "output" and nums[_INDEX[dearest]] > nums[_OUTPUT] + nums[_REASONING]:
                usage = usage._replace(**{"output": 0, dearest: usage.output})
            elif nums[_REASONING] > 0:
                usage = usage._replace(reasoning=usage.output)
        return usage

    def bound(
        self,
        *,
        input_tokens: int,
        writes_cache: bool = False,
        cache_1h: bool = False,
        service_tier: str | None = None,
        audio: bool = True,
        image: bool = True,
        choices: int = 1,
    ) -> Formula:
        """
        The most that a call with at most *input_tokens* of input can cost, in nano-dollars by the output tokens of each
        choice, whatever is cached, written or reasoned.

        The dearest rate that may apply is taken, for input and for output, among the tiers that an input of this size
        can reach.

        Args:
            input_tokens: an upper bound of the whole input.
            writes_cache: cache markers stand in the request. Where the provider writes its cache unasked (OpenAI since
                GPT-5.6), the write rate counts in any case.
            cache_1h: one of the markers asks for an hour.
            service_tier: as the request names it. ``auto`` may be billed as ``priority``, so both count; any other
                named tier counts beside the standard one, for a provider may fall back to that.
            audio: False where the request certainly has no audio and asks for none; its dearer rates then do not count.
            image: False where the request certainly has no images.
            choices: how many answers are asked for.
        """
        of_call = (writes_cache, cache_1h, service_tier, audio, image)
        peaks = self._peaks.get(of_call)
        if peaks is None:
            peaks = self._find_peaks(*of_call)
            if len(self._peaks) >= _PEAKS_KEPT:
                self._peaks.clear()
            self._peaks[of_call] = peaks
        for above, of_input, of_output in peaks:  # noqa: B007 - they are read below
            if input_tokens > above:
                break
        return bare(Formula, (input_tokens * of_input + self.fee, choices * of_output, self.den))

    def _find_peaks(
        self, writes_cache: bool, cache_1h: bool, service_tier: str | None, audio: bool, image: bool
    ) -> _Peaks:
        """The dearest rates of such a call, by the tiers that its input can reach."""
        inputs, outputs = self._kinds(writes_cache, cache_1h, audio, image)
        peaks = []
        of_input = of_output = 0
        for above, nums in sorted(step for schedule in self._schedules(service_tier) for step in schedule):
            of_input = max(of_input, *(nums[_INDEX[kind]] for kind in inputs))
            of_output = max(of_output, nums[_OUTPUT] + nums[_REASONING], *(nums[_INDEX[kind]] for kind in outputs))
            peaks.append((above, of_input, of_output))
        return tuple(reversed(peaks))

    def _kinds(self, writes_cache: bool, cache_1h: bool, audio: bool, image: bool) -> tuple[list[str], list[str]]:
        """What the input and the output of such a call may be billed as; reasoning apart."""
        inputs = ["input", "cached"]
        # A model that makes images may do so unasked, so its image output counts always.
        outputs = ["output", "output_image"]
        if writes_cache or cache_1h or not self.marked_writes:
            inputs.append("cache_write")
        if cache_1h:
            inputs.append("cache_write_1h")
        if audio:
            inputs += ["input_audio", "cached_audio"]
            outputs.append("output_audio")
        if image:
            inputs.append("input_image")
        return inputs, outputs

    def _schedules(self, service_tier: str | None) -> list[Schedule]:
        if service_tier in STANDARD_TIERS:
            return [self.standard]
        named = self.variants.get("priority" if service_tier == "auto" else str(service_tier))
        return [self.standard] if named is None else [self.standard, named]

    def usd_per_million(self, kind: str, *, input_tokens: int = 0, service_tier: str | None = None) -> Decimal:
        """The rate of one kind of token as people read it, in USD per million, for a call with this much input."""
        schedule = self.variants.get(service_tier, self.standard) if service_tier else self.standard
        nums = [step.nums for step in schedule if input_tokens > step.above][-1]
        numerator = nums[_INDEX[kind]] + (nums[_OUTPUT] if kind == "reasoning" else 0)
        return exact_decimal(Fraction(numerator, self.den) / 1000)

    def usd_per_request(self) -> Decimal:
        """The fee per request, in USD."""
        return exact_decimal(Fraction(self.fee, self.den) / 1_000_000_000)


def exact_decimal(value: Fraction) -> Decimal:
    """A decimal fraction as the shortest Decimal that equals it. (All published prices are decimal fractions.)"""
    with localcontext() as context:
        context.prec = 60
        quotient = (Decimal(value.numerator) / Decimal(value.denominator)).normalize(context)
        return quotient.quantize(Decimal(1)) if quotient == quotient.to_integral_value() else quotient


class Tier(NamedTuple):
    """The rates of one tier before they share a denominator: nano-dollars per token, for every kind of ``KINDS``."""

    above: int
    rates: Mapping[str, Fraction]


def make_rates(
    *,
    provider: str,
    model: str,
    version: str,
    standard: Iterable[Tier],
    variants: Mapping[str, Iterable[Tier]] | None = None,
    fee: Fraction = Fraction(0),
    marked_writes: bool = False,
    valid_from_ms: int | None = None,
    valid_until_ms: int | None = None,
) -> Rates:
    """
    Put all rates of a model over their least common denominator.

    *standard* must begin with the tier ``above = -1``; ``reasoning`` is given as its full rate. Raises ValueError on a
    negative rate or a missing kind.
    """
    plain = [tuple(standard), *(tuple(tiers) for tiers in (variants or {}).values())]
    names = list(variants or {})
    den = lcm(fee.denominator, *(rate.denominator for tiers in plain for tier in tiers for rate in tier.rates.values()))
    schedules = [tuple(_step(tier, den) for tier in sorted(tiers, key=lambda tier: tier.above)) for tiers in plain]
    for schedule in schedules:
        if not schedule or schedule[0].above != -1:
            raise ValueError(f"the rates of {model!r} do not begin at zero input")
    return Rates(
        provider=provider,
        model=model,
        version=version,
        den=den,
        standard=schedules[0],
        variants=dict(zip(names, schedules[1:], strict=True)),
        fee=int(fee * den),
        marked_writes=marked_writes,
        valid_from_ms=valid_from_ms,
        valid_until_ms=valid_until_ms,
    )


def _step(tier: Tier, den: int) -> Step:
    nums = []
    for kind in KINDS:
        rate = tier.rates.get(kind)
        if rate is None or rate < 0:
            raise ValueError(f"the rate of {kind} must be a number of at least 0, not {rate!r}")
        nums.append(int(rate * den))
    nums[_REASONING] -= nums[_OUTPUT]
    return Step(tier.above, tuple(nums))
