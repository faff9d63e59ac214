"""
Usage as providers report it, translated into :class:`~farthing.kernel.usage.Usage`: disjoint kinds, every token once.

The shapes, with what contains what (SDK type definitions of openai 3.54, anthropic 2.12; public API docs, 2026-11):

======================  ==============================================================================================
OpenAI chat             ``prompt_tokens`` contain cached, cache-written and audio ones; ``completion_tokens`` contain
                        reasoning and audio. Also Groq, Mistral, DeepSeek, xAI …, some of which report reasoning
                        outside of ``completion_tokens``: then ``total_tokens`` shows it
OpenAI Responses        ``input_tokens``, ``output_tokens`` and ``…_details``: the same containment. Images API too
Anthropic               ``input_tokens`` contain *neither* cache reads nor cache writes; ``output_tokens`` contain
                        thinking. Compactions and advisors stand in ``iterations`` alone
Gemini                  ``promptTokenCount`` contains cached ones; thoughts and tool-use prompts stand beside;
                        ``…TokensDetails`` tell the audio and image tokens in them
Bedrock Converse        ``inputTokens`` contain neither cache reads nor cache writes
ours                    ``input_tokens output_tokens cached_tokens cache_write_tokens reasoning_tokens``: cached and
                        cache-written are part of the input, reasoning of the output. Or the fields of ``Usage``
======================  ==============================================================================================

The provider's own total is the check. Where figures contradict each other, none is lost: the larger reading is taken,
and a note says what was done.

One file, because the shapes overlap, and which of them a figure is in is told by comparing all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..kernel.usage import KINDS, Usage

MAX_TOKENS = 2**53
_OURS = frozenset({"input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"})
_HOLDERS = ("usage", "usage_metadata", "usageMetadata")
_APART = frozenset({"compaction", "advisor_message"})
"""Anthropic iterations that its top-level figures leave out."""


_ANTHROPIC_KEYS = (
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "cache_creation",
    "iterations",
    "server_tool_use",
)


class Reported(NamedTuple):
    """A provider's figure: None where it gave none (absent is not zero), and what was odd about it."""

    usage: Usage | None
    note: str | None = None


NOTHING = Reported(None)


def usage_from(source: object) -> Usage:
    """
    The usage in *source*: a :class:`Usage`, a provider's usage mapping or SDK object, or an answer that holds one.

    Raises ValueError where there is none, where a count is not a whole number >= 0, and where a mapping of ours says
    that a part is larger than its whole. A provider's own contradictions are resolved, never raised.
    """
    if isinstance(source, Usage):
        return source
    mapping = _mapping(source)
    if mapping is None:
        raise ValueError(f"usage must be a Usage, a mapping or an SDK's usage object, not {source!r:.120}")
    for holder in _HOLDERS:
        inner = mapping.get(holder)
        if inner is not None:
            return usage_from(inner)
    if mapping and set(mapping) <= set(KINDS):
        return Usage(**dict(mapping))
    counts = _Counts(mapping)
    usage = _ours(counts) if set(mapping) <= _OURS else _translate(counts)[0]
    if counts.malformed:
        raise ValueError(f"usage: {counts.malformed[0]}")
    if usage is None:
        raise ValueError(
            f"usage names no token counts that farthing knows, such as input_tokens: {sorted(map(str, mapping))!r:.200}"
        )
    return usage


def reported(value: object) -> Reported:
    """What a decoded answer's ``usage`` says. Never raises: null, or what cannot be read, is a Reported of None."""
    if not isinstance(value, dict):
        return NOTHING
    counts = _Counts(value)
    usage, note = _translate(counts)
    if counts.malformed:
        note = "; ".join([*counts.malformed, *([note] if note else [])])
    return Reported(usage, note)


class _Counts:
    """Reads whole numbers out of a mapping, and remembers what was not one."""

    __slots__ = ("fields", "malformed")

    def __init__(self, fields: Mapping[Any, Any]) -> None:
        self.fields = fields
        self.malformed: list[str] = []

    def get(self, key: str) -> int | None:
        """The number under *key*; None where it is absent, null or not a count."""
        value = self.fields.get(key)
        if value is None or (type(value) is int and 0 <= value <= MAX_TOKENS):
            return value
        return self._odd(key, value)

    def within(self, holder: str, key: str) -> int | None:
        """The number under *key* in the mapping under *holder*, in the same way."""
        inner = self.fields.get(holder)
        if inner is None or (type(inner) is not dict and not isinstance(inner, Mapping)):  # the abstract check is slow
            return None
        value = inner.get(key)
        if value is None or (type(value) is int and 0 <= value <= MAX_TOKENS):
            return value
        return self._odd(f"{holder}.{key}", value)

    def inside(self, holder: str) -> _Counts:
        """Of the mapping under *holder*; of an empty one where there is none."""
        inner = self.fields.get(holder)
        counts = _Counts(inner if isinstance(inner, Mapping) else {})
        counts.malformed = self.malformed
        return counts

    def _odd(self, name: str, value: object) -> int | None:
        if isinstance(value, float) and value.is_integer() and 0 <= value <= MAX_TOKENS:
            return int(value)
        self.malformed.append(f"{name} must be a whole number of at least 0, not {value!r:.60}")
        return None

    def has(self, *keys: str) -> bool:
        return any(key in self.fields for key in keys)


_Translation = tuple[Usage | None, str | None]


def _translate(counts: _Counts) -> _Translation:
    fields = counts.fields
    for keys, translate in _SHAPES:
        for key in keys:
            if key in fields:
                return translate(counts)
    return None, None


def _openai_chat(counts: _Counts) -> _Translation:
    cached = _first(
        counts.within("prompt_tokens_details", "cached_tokens"),
        counts.get("cached_tokens"),  # Moonshot
        counts.get("prompt_cache_hit_tokens"),  # DeepSeek
    )
    return _containing(
        whole_input=counts.get("prompt_tokens"),
        whole_output=counts.get("completion_tokens"),
        total=counts.get("total_tokens"),
        parts={
            "cached": cached,
            "cache_write": counts.within("prompt_tokens_details", "cache_write_tokens"),
            "input_audio": counts.within("prompt_tokens_details", "audio_tokens"),
        },
        reasoning=_first(
            counts.within("completion_tokens_details", "reasoning_tokens"),
            counts.get("reasoning_tokens"),  # Perplexity and others
        ),
        output_parts={"output_audio": counts.within("completion_tokens_details", "audio_tokens")},
    )


def _input_output(counts: _Counts) -> _Translation:
    """OpenAI Responses and Images, and our own mapping: ``input_tokens`` contain their parts."""
    written = _first(counts.within("input_tokens_details", "cache_write_tokens"), counts.get("cache_write_tokens"))
    details = counts.inside("input_tokens_details")
    long_lived = min(details.within("cache_write_tokens_details", "ttl_12h_tokens") or 0, written or 0)
    return _containing(
        whole_input=counts.get("input_tokens"),
        whole_output=counts.get("output_tokens"),
        total=counts.get("total_tokens"),
        parts={
            "cached": _first(counts.within("input_tokens_details", "cached_tokens"), counts.get("cached_tokens")),
            # Of the two lifetimes that Usage tells apart, the longer one.
            "cache_write_1h": long_lived,
            "cache_write": written and written - long_lived,
            "input_audio": counts.within("input_tokens_details", "audio_tokens"),
            "input_image": counts.within("input_tokens_details", "image_tokens"),
        },
        reasoning=_first(
            counts.within("output_tokens_details", "reasoning_tokens"),
            counts.within("output_tokens_details", "thinking_tokens"),  # Anthropic, in an answer without cache figures
            counts.get("reasoning_tokens"),
        ),
        output_parts={
            "output_audio": counts.within("output_tokens_details", "audio_tokens"),
            "output_image": counts.within("output_tokens_details", "image_tokens"),
        },
    )


def _containing(
    *,
    whole_input: int | None,
    whole_output: int | None,
    total: int | None,
    parts: dict[str, int | None],
    reasoning: int | None,
    output_parts: dict[str, int | None],
) -> _Translation:
    """The kinds, where the input and the output figure contain their parts."""
    if total is not None:
        # Embeddings report no output; some servers no input.
        if whole_output is None and whole_input is not None:
            whole_output = max(0, total - whole_input)
        elif whole_input is None and whole_output is not None:
            whole_input = max(0, total - whole_output)
    if whole_input is None or whole_output is None:
        return None, None
    notes: list[str] = []
    reasoning = reasoning or 0
    if reasoning > whole_output or (total is not None and total != whole_input + whole_output):
        whole_output, reasoning = _reasoning(whole_input, whole_output, total, reasoning, notes)
    kinds = _carve(whole_input, "input", parts, notes)
    output = _carve(whole_output, "output", output_parts, notes)
    if reasoning > output["output"]:
        # Reasoning is text: where the parts leave too little room for it, the other parts yield.
        output = {"output": whole_output}
    return Usage(**kinds, **output, reasoning=reasoning), "; ".join(notes) or None


def _reasoning(
    whole_input: int, whole_output: int, total: int | None, reasoning: int, notes: list[str]
) -> tuple[int, int]:
    """The whole output and the reasoning in it, checked against the provider's total."""
    told = whole_input + whole_output
    if total is not None and total > told:
        surplus = total - told
        if surplus == reasoning:
            notes.append(f"total_tokens holds {surplus} reasoning tokens that the output figure leaves out: added")
        else:
            notes.append(f"total_tokens is {surplus} more than its parts: counted as output")
        whole_output += surplus
    elif total is not None and total < told:
        notes.append(f"total_tokens is {told - total} less than its parts: the parts were taken")
    if reasoning > whole_output:
        if total is None:
            notes.append(f"{reasoning} reasoning tokens stand outside of {whole_output} output tokens: added")
            whole_output += reasoning
        else:
            notes.append(f"{reasoning} reasoning tokens are more than all output: taken as {whole_output}")
            reasoning = whole_output
    return whole_output, reasoning


def _carve(whole: int, rest: str, parts: dict[str, int | None], notes: list[str]) -> dict[str, int]:
    """*whole* cut into *parts* in order, the remainder under *rest*; a part never gets more than is left."""
    kinds = {rest: whole}
    left = whole
    for kind, count in parts.items():
        if count:
            if count > left:
                notes.append(f"{count} {kind} tokens are more than the {left} left of {whole} {rest}: taken as {left}")
            kinds[kind] = min(left, count)
            left -= kinds[kind]
    kinds[rest] = left
    return kinds


def _anthropic(counts: _Counts) -> _Translation:
    fresh = counts.get("input_tokens")
    output = counts.get("output_tokens")
    if fresh is None or output is None:
        return None, None
    notes: list[str] = []
    short, long = _written(counts, notes)
    usage = Usage(
        input=fresh,
        cached=counts.get("cache_read_input_tokens") or 0,
        cache_write=short,
        cache_write_1h=long,
        output=output,
        reasoning=min(output, counts.within("output_tokens_details", "thinking_tokens") or 0),
    )
    iterations = counts.fields.get("iterations")
    for step in iterations if isinstance(iterations, list) else ():
        if isinstance(step, Mapping) and step.get("type") in _APART:
            apart, _ = _anthropic(_Counts({key: value for key, value in step.items() if key != "iterations"}))
            if apart is not None:
                notes.append(f"{apart.total_tokens} tokens of a {step['type']} iteration added")
                usage += apart
    return usage, "; ".join(notes) or None


def _written(counts: _Counts, notes: list[str]) -> tuple[int, int]:
    """Cache writes for five minutes and for an hour."""
    short = counts.within("cache_creation", "ephemeral_5m_input_tokens") or 0
    long = counts.within("cache_creation", "ephemeral_1h_input_tokens") or 0
    told = counts.get("cache_creation_input_tokens")
    surplus = 0 if told is None else told - short - long
    if surplus < 0:
        notes.append(f"cache_creation is {-surplus} more than cache_creation_input_tokens: it was taken")
        surplus = 0
    # A stream repeats the sum as it grows, without the breakdown: what was written for an hour stays so.
    if long and not short:
        return 0, long + surplus
    return short + surplus, long


def _gemini(counts: _Counts) -> _Translation:
    def either(camel: str, snake: str) -> int | None:
        return _first(counts.get(camel), counts.get(snake))

    prompt = either("promptTokenCount", "prompt_token_count")
    if prompt is None:
        return None, None
    thoughts = either("thoughtsTokenCount", "thoughts_token_count") or 0
    fresh = _by_modality(counts, "promptTokensDetails", "prompt_tokens_details")
    used = _by_modality(counts, "toolUsePromptTokensDetails", "tool_use_prompt_tokens_details")
    cached = _by_modality(counts, "cacheTokensDetails", "cache_tokens_details")
    made = _by_modality(counts, "candidatesTokensDetails", "candidates_tokens_details")
    told_cached = either("cachedContentTokenCount", "cached_content_token_count")
    # What the cache holds is told of the prompt too.
    audio = fresh.get("AUDIO", 0) - cached.get("AUDIO", 0) + used.get("AUDIO", 0)
    image = fresh.get("IMAGE", 0) - cached.get("IMAGE", 0) + used.get("IMAGE", 0)
    cached_audio = min(cached.get("AUDIO", 0), told_cached or 0)
    return _containing(
        whole_input=prompt + (either("toolUsePromptTokenCount", "tool_use_prompt_token_count") or 0),
        whole_output=thoughts + (either("candidatesTokenCount", "candidates_token_count") or 0),
        total=either("totalTokenCount", "total_token_count"),
        parts={
            "cached": told_cached and told_cached - cached_audio,
            "cached_audio": cached_audio,
            "input_audio": max(audio, 0),
            "input_image": max(image, 0),
        },
        reasoning=thoughts,
        output_parts={"output_audio": made.get("AUDIO"), "output_image": made.get("IMAGE")},
    )


def _by_modality(counts: _Counts, *names: str) -> dict[str, int]:
    """``[{"modality": "AUDIO", "tokenCount": 5}]`` as a mapping; what is not told so is left out."""
    found: dict[str, int] = {}
    for name in names:
        details = counts.fields.get(name)
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, Mapping):
                one = _Counts(detail)
                tokens = _first(one.get("tokenCount"), one.get("token_count"))
                modality = str(getattr(detail.get("modality"), "value", detail.get("modality")))
                found[modality] = found.get(modality, 0) + (tokens or 0)
    return found


def _bedrock(counts: _Counts) -> _Translation:
    fresh, output = counts.get("inputTokens"), counts.get("outputTokens")
    if fresh is None or output is None:
        return None, None
    cached = counts.get("cacheReadInputTokens") or 0
    return Usage(input=fresh, cached=cached, cache_write=counts.get("cacheWriteInputTokens") or 0, output=output), None


_SHAPES: tuple[tuple[tuple[str, ...], Callable[[_Counts], _Translation]], ...] = (
    (("prompt_tokens", "completion_tokens"), _openai_chat),
    (_ANTHROPIC_KEYS, _anthropic),
    (("input_tokens", "output_tokens"), _input_output),
    (("promptTokenCount", "prompt_token_count"), _gemini),
    (("inputTokens", "outputTokens"), _bedrock),
)
"""Which keys betray which shape; the first that is present decides."""


def _first(*counts: int | None) -> int | None:
    for count in counts:
        if count is not None:
            return count
    return None


def _ours(counts: _Counts) -> Usage | None:
    """A mapping that a person wrote: what it leaves out is zero, and its contradictions are theirs to resolve."""
    whole = {key: counts.get(key) or 0 for key in _OURS}
    if not counts.has("input_tokens", "output_tokens") or counts.malformed:
        return None
    if whole["cached_tokens"] + whole["cache_write_tokens"] > whole["input_tokens"]:
        raise ValueError(
            f"usage: cached_tokens ({whole['cached_tokens']}) and cache_write_tokens ({whole['cache_write_tokens']}) "
            f"are part of input_tokens ({whole['input_tokens']})"
        )
    if whole["reasoning_tokens"] > whole["output_tokens"]:
        raise ValueError(
            f"usage: reasoning_tokens ({whole['reasoning_tokens']}) "
            f"are part of output_tokens ({whole['output_tokens']})"
        )
    return Usage(
        input=whole["input_tokens"] - whole["cached_tokens"] - whole["cache_write_tokens"],
        cached=whole["cached_tokens"],
        cache_write=whole["cache_write_tokens"],
        output=whole["output_tokens"],
        reasoning=whole["reasoning_tokens"],
    )


def _mapping(source: object) -> Mapping[Any, Any] | None:
    """An SDK's object (a pydantic model, or any plain object) as a mapping; None if it is neither."""
    if isinstance(source, Mapping):
        return source
    dump = getattr(source, "model_dump", None)
    if callable(dump):
        dumped = dump()
        return dumped if isinstance(dumped, Mapping) else None
    if source is None or isinstance(source, (str, bytes, int, float, list, tuple, type)):
        return None
    fields = getattr(source, "__dict__", None)
    return fields if isinstance(fields, Mapping) and fields else None
