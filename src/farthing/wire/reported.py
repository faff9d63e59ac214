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
from typing import Any

from ..kernel.balances import bare
from ..kernel.usage import KINDS, Usage

MAX_TOKENS = 2**53
_OURS = frozenset({"input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"})
_HOLDERS = ("usage", "usage_metadata", "usageMetadata")
_APART = frozenset({"compaction", "advisor_message"})
"""Anthropic iterations that its top-level figures leave out."""


Reported = tuple[Usage | None, str | None]
"""A provider's figure: None where it gave none (absent is not zero); and what was odd about it."""


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
    malformed: list[str] = []
    usage = _ours(mapping, malformed) if set(mapping) <= _OURS else _translated(mapping, malformed, [])
    if malformed:
        raise ValueError(f"usage: {malformed[0]}")
    if usage is None:
        raise ValueError(
            f"usage names no token counts that farthing knows, such as input_tokens: {sorted(map(str, mapping))!r:.200}"
        )
    return usage


def reported(value: object) -> Reported:
    """What a decoded answer's ``usage`` says. Never raises: null, or what cannot be read, is no figure."""
    if not isinstance(value, dict):
        return None, None
    notes: list[str] = []
    usage = _translated(value, notes, notes)
    return usage, "; ".join(notes) if notes else None


INPUT, CACHED, CACHE_WRITE, CACHE_WRITE_1H, INPUT_AUDIO, CACHED_AUDIO, INPUT_IMAGE = range(7)
OUTPUT, REASONING, OUTPUT_AUDIO, OUTPUT_IMAGE = range(7, 11)
TOTAL, BESIDE, CACHED_TOO = 11, 12, 13
"""Where the figures of a report are put: by ``KINDS``, then the provider's total, what one shape tells beside, and
another word for the cached, for where that one says nothing."""

_UNTOLD = [None, 0, 0, 0, 0, 0, 0, None, 0, 0, 0, None, None, None]
"""The figures of a report that says nothing: no part, and an unknown whole."""

# Plain tuples, since a named one takes ten times as long to unpack.
_Names = tuple[dict[str, int], tuple[tuple[str, "_Names"], ...]]
"""What a report calls the figures; and which mappings are in it, with the names in them, which outrank its own."""
_Shape = tuple[frozenset[str], _Names, Callable[[list[Any], Mapping[Any, Any], list[str]], Usage | None]]
"""One way to report usage: the names that betray it, all names, and what makes usage of the figures, the report, and
the notes to add to."""


def _translated(report: Mapping[Any, Any], malformed: list[str], notes: list[str]) -> Usage | None:
    for betrayed_by, names, translate in _SHAPES:
        if not betrayed_by.isdisjoint(report):
            told = _UNTOLD.copy()
            _read(report, names, told, malformed)
            return translate(told, report, notes)
    return None


def _read(report: Mapping[Any, Any], names: _Names, told: list[Any], malformed: list[str], holder: str = "") -> None:
    """Put the whole numbers under *names* where they belong; null is not told, and anything else is *malformed*."""
    figures, within = names
    for name, value in report.items():
        if name in figures:
            if type(value) is int and 0 <= value <= MAX_TOKENS:
                told[figures[name]] = value
            elif isinstance(value, float) and value.is_integer() and 0 <= value <= MAX_TOKENS:
                told[figures[name]] = int(value)
            elif value is not None:
                where = f"{holder}.{name}" if holder else name
                malformed.append(f"{where} must be a whole number of at least 0, not {value!r:.60}")
    for name, inner in within:
        if name in report:
            details = report[name]
            if type(details) is dict or isinstance(details, Mapping):  # the abstract check is slow
                _read(details, inner, told, malformed, name)


def _containing(told: list[Any], report: Mapping[Any, Any], notes: list[str]) -> Usage | None:
    """Where the input and the output figure contain their parts."""
    (
        whole_input, cached, written, long, heard, heard_cached, seen,
        whole_output, reasoning, spoken, drawn, total, _, cached_too,
    ) = told  # fmt: skip
    if whole_input is None or whole_output is None:
        # Embeddings report no output; some servers no input.
        if total is None or whole_input == whole_output:  # neither is told
            return None
        whole_input = max(0, total - whole_output) if whole_input is None else whole_input
        whole_output = max(0, total - whole_input) if whole_output is None else whole_output
    if reasoning > whole_output or (total is not None and total != whole_input + whole_output):
        whole_output, reasoning = _reasoning(whole_input, whole_output, total, reasoning, notes)
    if cached_too and not cached:
        cached = cached_too
    fresh = whole_input - cached - written - long - heard - heard_cached - seen
    if fresh < 0:
        parts = {CACHED: cached, CACHE_WRITE_1H: long, CACHE_WRITE: written}
        parts |= {CACHED_AUDIO: heard_cached, INPUT_AUDIO: heard, INPUT_IMAGE: seen}
        cached, long, written, heard_cached, heard, seen = _trimmed(parts, INPUT, whole_input, notes)
        fresh = 0
    text = whole_output - spoken - drawn
    if text < reasoning:
        if text < 0:
            spoken, drawn = _trimmed({OUTPUT_AUDIO: spoken, OUTPUT_IMAGE: drawn}, OUTPUT, whole_output, notes)
            text = 0
        if text < reasoning:
            # Reasoning is text: where the parts leave too little room for it, the other parts yield.
            text, spoken, drawn = whole_output, 0, 0
    return bare(Usage, (fresh, cached, written, long, heard, heard_cached, seen, text, reasoning, spoken, drawn))


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


def _trimmed(parts: dict[int, int], rest: int, whole: int, notes: list[str]) -> list[int]:
    """The *parts* come to more than the *whole*: each, in order, gets no more than is left, and nothing remains."""
    left = whole
    for part, count in parts.items():
        if count > left:
            notes.append(
                f"{count} {KINDS[part]} tokens are more than the {left} left of {whole} {KINDS[rest]}: taken as {left}"
            )
            parts[part] = left
        left -= parts[part]
    return list(parts.values())


def _responses(told: list[Any], report: Mapping[Any, Any], notes: list[str]) -> Usage | None:
    # Of the two lifetimes that Usage tells apart, the longer one: a part of what was written.
    told[CACHE_WRITE_1H] = min(told[CACHE_WRITE_1H], told[CACHE_WRITE])
    told[CACHE_WRITE] -= told[CACHE_WRITE_1H]
    return _containing(told, report, notes)


def _anthropic(told: list[Any], report: Mapping[Any, Any], notes: list[str]) -> Usage | None:
    if told[INPUT] is None or told[OUTPUT] is None:
        return None
    _written(told, notes)
    told[REASONING] = min(told[OUTPUT], told[REASONING])
    usage = bare(Usage, told[:TOTAL])
    iterations = report.get("iterations")
    for step in iterations if isinstance(iterations, list) else ():
        if isinstance(step, Mapping) and step.get("type") in _APART:
            one = _UNTOLD.copy()
            _read(step, _ANTHROPIC, one, [])
            apart = _anthropic(one, {}, [])
            if apart is not None:
                notes.append(f"{apart.total_tokens} tokens of a {step['type']} iteration added")
                usage += apart
    return usage


def _written(told: list[Any], notes: list[str]) -> None:
    """Cache writes for five minutes and for an hour; their sum stands beside."""
    short, long = told[CACHE_WRITE], told[CACHE_WRITE_1H]
    surplus = 0 if told[BESIDE] is None else told[BESIDE] - short - long
    if surplus < 0:
        notes.append(f"cache_creation is {-surplus} more than cache_creation_input_tokens: it was taken")
    # A stream repeats the sum as it grows, without the breakdown: what was written for an hour stays so.
    elif long and not short:
        told[CACHE_WRITE_1H] += surplus
    else:
        told[CACHE_WRITE] += surplus


def _gemini(told: list[Any], report: Mapping[Any, Any], notes: list[str]) -> Usage | None:
    if told[INPUT] is None:
        return None
    fresh = _by_modality(report, "promptTokensDetails", "prompt_tokens_details")
    used = _by_modality(report, "toolUsePromptTokensDetails", "tool_use_prompt_tokens_details")
    cached = _by_modality(report, "cacheTokensDetails", "cache_tokens_details")
    made = _by_modality(report, "candidatesTokensDetails", "candidates_tokens_details")
    told[INPUT] += told[BESIDE] or 0
    told[OUTPUT] = told[REASONING] + (told[OUTPUT] or 0)
    told[CACHED_AUDIO] = min(cached.get("AUDIO", 0), told[CACHED])
    told[CACHED] -= told[CACHED_AUDIO]
    # What the cache holds is told of the prompt too.
    told[INPUT_AUDIO] = max(fresh.get("AUDIO", 0) - cached.get("AUDIO", 0) + used.get("AUDIO", 0), 0)
    told[INPUT_IMAGE] = max(fresh.get("IMAGE", 0) - cached.get("IMAGE", 0) + used.get("IMAGE", 0), 0)
    told[OUTPUT_AUDIO], told[OUTPUT_IMAGE] = made.get("AUDIO", 0), made.get("IMAGE", 0)
    return _containing(told, report, notes)


_NUMBERED = {"2": "IMAGE", "4": "AUDIO"}
"""Modalities as clients of Google's may have them told (``$alt=json;enum-encoding=int``)."""


def _by_modality(report: Mapping[Any, Any], *names: str) -> dict[str, int]:
    """``[{"modality": "AUDIO", "tokenCount": 5}]`` as a mapping; what is not told so is left out."""
    found: dict[str, int] = {}
    for name in names:
        details = report.get(name)
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, Mapping):
                told = _UNTOLD.copy()
                _read(detail, _MODALITY, told, [])
                modality = str(getattr(detail.get("modality"), "value", detail.get("modality")))
                modality = _NUMBERED.get(modality, modality)
                found[modality] = found.get(modality, 0) + (told[BESIDE] or 0)
    return found


def _bedrock(told: list[Any], report: Mapping[Any, Any], notes: list[str]) -> Usage | None:
    return None if told[INPUT] is None or told[OUTPUT] is None else bare(Usage, told[:TOTAL])


_CHAT: _Names = (
    {
        "prompt_tokens": INPUT,
        "completion_tokens": OUTPUT,
        "total_tokens": TOTAL,
        "prompt_cache_hit_tokens": CACHED_TOO,  # DeepSeek
        "cached_tokens": CACHED,  # Moonshot
        "reasoning_tokens": REASONING,  # Perplexity and others
    },
    (
        (
            "prompt_tokens_details",
            ({"cached_tokens": CACHED, "cache_write_tokens": CACHE_WRITE, "audio_tokens": INPUT_AUDIO}, ()),
        ),
        ("completion_tokens_details", ({"reasoning_tokens": REASONING, "audio_tokens": OUTPUT_AUDIO}, ())),
    ),
)
_ANTHROPIC: _Names = (
    {
        "input_tokens": INPUT,
        "output_tokens": OUTPUT,
        "cache_read_input_tokens": CACHED,
        "cache_creation_input_tokens": BESIDE,
    },
    (
        (
            "cache_creation",
            ({"ephemeral_5m_input_tokens": CACHE_WRITE, "ephemeral_1h_input_tokens": CACHE_WRITE_1H}, ()),
        ),
        ("output_tokens_details", ({"thinking_tokens": REASONING}, ())),
    ),
)
_INPUT_OUTPUT: _Names = (
    {
        "input_tokens": INPUT,
        "output_tokens": OUTPUT,
        "total_tokens": TOTAL,
        "cached_tokens": CACHED,
        "cache_write_tokens": CACHE_WRITE,
        "reasoning_tokens": REASONING,
    },
    (
        (
            "input_tokens_details",
            (
                {
                    "cached_tokens": CACHED,
                    "cache_write_tokens": CACHE_WRITE,
                    "audio_tokens": INPUT_AUDIO,
                    "image_tokens": INPUT_IMAGE,
                },
                (("cache_write_tokens_details", ({"ttl_12h_tokens": CACHE_WRITE_1H}, ())),),
            ),
        ),
        (
            "output_tokens_details",
            (
                {
                    "thinking_tokens": REASONING,  # Anthropic, in an answer without cache figures
                    "reasoning_tokens": REASONING,
                    "audio_tokens": OUTPUT_AUDIO,
                    "image_tokens": OUTPUT_IMAGE,
                },
                (),
            ),
        ),
    ),
)
"""OpenAI Responses and Images, and our own mapping."""
_GEMINI: _Names = (
    {
        "prompt_token_count": INPUT,
        "promptTokenCount": INPUT,
        "candidates_token_count": OUTPUT,
        "candidatesTokenCount": OUTPUT,
        "total_token_count": TOTAL,
        "totalTokenCount": TOTAL,
        "cached_content_token_count": CACHED,
        "cachedContentTokenCount": CACHED,
        "thoughts_token_count": REASONING,
        "thoughtsTokenCount": REASONING,
        "tool_use_prompt_token_count": BESIDE,
        "toolUsePromptTokenCount": BESIDE,
    },
    (),
)
_MODALITY: _Names = ({"token_count": BESIDE, "tokenCount": BESIDE}, ())
_BEDROCK: _Names = (
    {
        "inputTokens": INPUT,
        "outputTokens": OUTPUT,
        "cacheReadInputTokens": CACHED,
        "cacheWriteInputTokens": CACHE_WRITE,
    },
    (),
)
_SHAPES: tuple[_Shape, ...] = (
    (frozenset({"prompt_tokens", "completion_tokens"}), _CHAT, _containing),
    (
        frozenset(
            {
                "cache_creation_input_tokens",
                "cache_read_input_tokens",
                "cache_creation",
                "iterations",
                "server_tool_use",
            }
        ),
        _ANTHROPIC,
        _anthropic,
    ),
    (frozenset({"input_tokens", "output_tokens"}), _INPUT_OUTPUT, _responses),
    (frozenset({"promptTokenCount", "prompt_token_count"}), _GEMINI, _gemini),
    (frozenset({"inputTokens", "outputTokens"}), _BEDROCK, _bedrock),
)
"""The first that a report is betrayed to be in decides."""


def _ours(mapping: Mapping[Any, Any], malformed: list[str]) -> Usage | None:
    """A mapping that a person wrote: what it leaves out is zero, and its contradictions are theirs to resolve."""
    told: list[Any] = _UNTOLD.copy()
    _read(mapping, _INPUT_OUTPUT, told, malformed)
    if malformed or not {"input_tokens", "output_tokens"} & set(mapping):
        return None
    whole_input, whole_output = told[INPUT] or 0, told[OUTPUT] or 0
    cached, written, reasoning = told[CACHED], told[CACHE_WRITE], told[REASONING]
    if cached + written > whole_input:
        raise ValueError(
            f"usage: cached_tokens ({cached}) and cache_write_tokens ({written}) "
            f"are part of input_tokens ({whole_input})"
        )
    if reasoning > whole_output:
        raise ValueError(f"usage: reasoning_tokens ({reasoning}) are part of output_tokens ({whole_output})")
    return Usage(
        input=whole_input - cached - written,
        cached=cached,
        cache_write=written,
        output=whole_output,
        reasoning=reasoning,
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
