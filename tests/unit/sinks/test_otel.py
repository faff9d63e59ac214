"""OpenTelemetry: the real SDK, exporting to memory, sees the GenAI names and the ledger's figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import farthing
from farthing import sinks
from farthing.testing import FakeProvider, Reply
from tests.doors.clients import HI, openai_client

pytestmark = pytest.mark.usefixtures("farthing_isolated")


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def meters(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    provider = MeterProvider(metric_readers=[reader])
    yield provider
    provider.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    data = reader.get_metrics_data()
    return {
        metric.name: [(dict(point.attributes or {}), point) for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_metrics_and_a_span_inside_the_callers(meters: MeterProvider, reader: InMemoryMetricReader) -> None:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = tracers.get_tracer("the program")
    sink = sinks.OTelSink(meter=meters.get_meter("test"), tracer=tracer)
    with FakeProvider(Reply(output_tokens=30)) as provider, openai_client(provider) as client:
        farthing.use_sink(sink)
        budget, tags = farthing.budget("b", usd=1, tokens=1_000_000), farthing.track(feature="search")
        with budget, tags, tracer.start_as_current_span("answer") as outside:
            client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=50)
        with pytest.raises(farthing.BudgetExceeded), farthing.budget("tight", tokens=1):
            client.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=50)
        assert sinks.flush(60)
        found = points(reader)
    (row,) = farthing.report()
    usage = {
        attributes["gen_ai.token.type"]: (attributes, point) for attributes, point in found["gen_ai.client.token.usage"]
    }
    assert usage["input"][1].sum == row["input_tokens"]
    assert usage["output"][1].sum == row["output_tokens"] == 30
    assert usage["input"][0]["gen_ai.request.model"] == "gpt-4o"
    assert usage["input"][0]["gen_ai.provider.name"] == "openai"
    assert usage["input"][0]["farthing.tag.feature"] == "search"
    ((_, cost),) = found["farthing.cost"]
    assert cost.value == pytest.approx(float(row["usd"]))
    ((attributes, events),) = found["farthing.budget.events"]
    assert (attributes["farthing.action"], attributes["farthing.budget"], events.value) == ("blocked", "tight", 1)
    remaining = {
        (of["farthing.budget"], of["farthing.unit"]): point.value for of, point in found["farthing.budget.remaining"]
    }
    assert remaining["b", "tokens"] == 1_000_000 - row["tokens"]
    (span,) = [span for span in exporter.get_finished_spans() if span.name == "chat gpt-4o"]
    assert span.parent is not None
    assert span.parent.span_id == outside.get_span_context().span_id
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.output_tokens"] == 30
    assert span.attributes["farthing.cost.usd"] == format(row["usd"], "f")
    assert span.attributes["farthing.budget"] == "b"


def test_tags_can_be_left_out(meters: MeterProvider, reader: InMemoryMetricReader) -> None:
    sink = sinks.OTelSink(tags=False, meter=meters.get_meter("test"), spans=False)
    farthing.use_sink(sinks.QueueSink(sink, max_queue=100))
    farthing.record({"input_tokens": 10}, model="gpt-4o", user="alice")
    assert sinks.flush(60)
    assert not [name for of, _ in points(reader)["gen_ai.client.token.usage"] for name in of if "alice" in str(of)]
    assert "gen_ai.client.operation.duration" in points(reader)


def test_without_a_provider_nothing_fails() -> None:
    subscription = farthing.use_sink(sinks.OTelSink())
    assert subscription is not None
    farthing.record({"input_tokens": 10}, model="gpt-4o")
    assert subscription.flush(60)
    assert subscription.failed == 0
