"""
OpenTelemetry: metrics and a span for each call, under the GenAI names.

Needs ``pip install "farthing[otel]"``; where the program has set no provider up, nothing is exported and nothing fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, FarthingError
from ..kernel.hold import Entry
from ..kernel.money import usd_decimal, usd_from_nano
from ..kernel.usage import INPUT_KINDS, OUTPUT_KINDS
from ..reports.accounts import list_accounts
from ..runtime.default import runtime
from ..runtime.events import BudgetEvent
from . import genai

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from opentelemetry.trace import Tracer

_NANOSECONDS = 1_000_000


class OTelSink:
    """
    Metrics: ``gen_ai.client.token.usage`` and ``gen_ai.client.operation.duration`` (histograms), ``farthing.cost`` in
    USD, ``farthing.budget.events``, and ``farthing.budget.remaining`` of every budget with a limit.

    Args:
        tags: each tag of a call is an attribute too (``farthing.tag.feature``). Turn it off where tags have many
            values: every one of them is a time series.
        meter: the meter to use; None: that of the program's own provider.
        tracer: the same for spans. A call's span is a child of the one in which it was made.
        spans: make a span for each call.

    Metrics are floats by their nature: budgets go by the ledger. Raises ConfigError if opentelemetry-api is missing.
    """

    def __init__(
        self, *, tags: bool = True, meter: Meter | None = None, tracer: Tracer | None = None, spans: bool = True
    ) -> None:
        try:
            from opentelemetry import context, metrics, trace
        except ImportError as error:
            raise ConfigError('OTelSink needs opentelemetry-api: pip install "farthing[otel]"', key="sink") from error
        self._tags = tags
        self._tracer = (tracer or trace.get_tracer("farthing")) if spans else None
        meter = meter or metrics.get_meter("farthing")
        self.capture = context.get_current
        """Called where a call ends: the context whose span it belongs to."""
        self._tokens = meter.create_histogram(
            genai.TOKEN_USAGE,
            unit="{token}",
            description="Tokens of a call, by type.",
            explicit_bucket_boundaries_advisory=genai.TOKEN_BUCKETS,
        )
        self._duration = meter.create_histogram(
            genai.DURATION,
            unit="s",
            description="From hold to end.",
            explicit_bucket_boundaries_advisory=genai.SECOND_BUCKETS,
        )
        # A correction may lower what was counted before, so this is not a counter that only grows.
        self._cost = meter.create_up_down_counter(genai.COST, unit="USD", description="What calls cost.")
        self._events = meter.create_counter(genai.BUDGET_EVENTS, unit="{event}", description="What budgets did.")
        meter.create_observable_gauge(
            genai.BUDGET_REMAINING, callbacks=[_remaining], description="What is left of a limit, in its unit."
        )

    def write_entry(self, entry: Entry, context: Any) -> None:
        """One call, with the context that :attr:`capture` gave."""
        known = genai.metric_attributes(entry)
        tags = genai.tag_attributes(entry.facts.tags) if self._tags else {}
        attributes = {**known, **tags}
        if entry.kind == "call":
            for kinds, kind in ((INPUT_KINDS, "input"), (OUTPUT_KINDS, "output")):
                self._tokens.record(entry.tokens(*kinds), {**attributes, genai.TOKEN_TYPE: kind})
            seconds = (entry.at_ms - entry.started_ms) / 1_000
            self._duration.record(seconds, {**attributes, **genai.error_attributes(entry)})
        if entry.cost_nano:
            self._cost.add(float(usd_from_nano(entry.cost_nano)), attributes)
        if self._tracer is not None:
            self._span(self._tracer, entry, {**attributes, **genai.span_attributes(entry)}, context)

    def write_event(self, event: BudgetEvent) -> None:
        """What a budget did."""
        attributes: genai.Attributes = {"farthing.budget": event.name, "farthing.action": event.action}
        if event.model:
            attributes["gen_ai.request.model"] = event.model
        self._events.add(1, {**attributes, **(genai.tag_attributes(event.scope) if self._tags else {})})

    def _span(self, tracer: Tracer, entry: Entry, attributes: genai.Attributes, context: Any) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        name = f"{genai.operation(entry)} {entry.facts.model or ''}".rstrip()
        span = tracer.start_span(
            name if entry.kind == "call" else f"correction of {name}",
            context=context,
            kind=SpanKind.CLIENT,
            attributes={**attributes, **genai.error_attributes(entry)},
            start_time=(entry.started_ms if entry.kind == "call" else entry.at_ms) * _NANOSECONDS,
        )
        if entry.cost_nano is not None:
            span.set_attribute("farthing.cost.usd", usd_decimal(entry.cost_nano))
        if entry.ending != "ok":
            span.set_status(Status(StatusCode.ERROR, entry.ending))
        span.end(entry.at_ms * _NANOSECONDS)


def _remaining(options: CallbackOptions) -> Iterable[Observation]:
    """Read when metrics are collected: what is left of every account in use."""
    from opentelemetry.metrics import Observation

    try:
        found = list_accounts(runtime().main.store)
    except FarthingError:
        # The exporter's thread asks while the ledger is unavailable: then there is nothing to say.
        return []
    return [
        Observation(
            float(usd_from_nano(figures.remaining)) if figures.unit == "usd" else figures.remaining,
            {
                "farthing.budget": budget.budget.name,
                "farthing.unit": figures.unit,
                **genai.tag_attributes({name: value for name, value in account.scope.items() if value is not None}),
            },
        )
        for budget in found
        for account in budget.accounts
        for figures in account.units
        if figures.remaining is not None
    ]
