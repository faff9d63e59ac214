"""
The names under which OpenTelemetry knows calls of language models, and ours beside them.

In one place, since the conventions are still in development: https://opentelemetry.io/docs/specs/semconv/gen-ai/ (read
in November 2026).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..kernel.hold import Entry
from ..kernel.usage import CACHED_KINDS, INPUT_KINDS, OUTPUT_KINDS

Attributes = dict[str, str | int | float]

TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - a metric
DURATION = "gen_ai.client.operation.duration"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - an attribute
COST = "farthing.cost"
BUDGET_EVENTS = "farthing.budget.events"
BUDGET_REMAINING = "farthing.budget.remaining"
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864)
SECOND_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)

_OPERATIONS = {
    "openai.completions": "text_completion",
    "openai.embeddings": "embeddings",
    "gemini.embeddings": "embeddings",
    "gemini.generate": "generate_content",
    "openai.images": "generate_content",
}
_PROVIDERS = {
    "google": "gcp.gemini",
    "azure": "azure.ai.openai",
    "aws": "aws.bedrock",
    "mistral": "mistral_ai",
    "x-ai": "x_ai",
}


def operation(entry: Entry) -> str:
    """What kind of call it was."""
    return _OPERATIONS.get(entry.facts.dialect or "", "chat")


def metric_attributes(entry: Entry) -> Attributes:
    """What a call's metrics are told apart by."""
    facts = entry.facts
    found: Attributes = {"gen_ai.operation.name": operation(entry)}
    if facts.provider:
        found["gen_ai.provider.name"] = _PROVIDERS.get(facts.provider, facts.provider)
    if facts.model:
        found["gen_ai.request.model"] = facts.model
    if entry.model:
        found["gen_ai.response.model"] = entry.model
    return found


def error_attributes(entry: Entry) -> Attributes:
    """How it failed, if it did."""
    return {} if entry.ending == "ok" else {"error.type": entry.ending}


def span_attributes(entry: Entry) -> Attributes:
    """What a call's span says beside that. Money is decimal text: floats would blur it."""
    found: Attributes = {
        "gen_ai.usage.input_tokens": entry.tokens(*INPUT_KINDS),
        "gen_ai.usage.output_tokens": entry.tokens(*OUTPUT_KINDS),
        "gen_ai.usage.cache_read.input_tokens": entry.tokens(*CACHED_KINDS),
        "gen_ai.usage.cache_creation.input_tokens": entry.tokens("cache_write", "cache_write_1h"),
        "gen_ai.usage.reasoning.output_tokens": entry.tokens("reasoning"),
        "farthing.call.id": entry.id,
        "farthing.call.ending": entry.ending,
        "farthing.usage_source": entry.usage_source,
    }
    if entry.facts.budgets:
        found["farthing.budget"] = ", ".join(entry.facts.budgets)
    return found


def tag_attributes(tags: Mapping[str, str] | tuple[tuple[str, str], ...]) -> Attributes:
    """A call's tags, kept apart from every other attribute."""
    return {f"farthing.tag.{name}": value for name, value in dict(tags).items()}
