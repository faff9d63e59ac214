"""
OpenAI legacy completions (``POST …/completions``): a prompt and no chat template.

Shapes: openai 3.54 ``types/completion*``; public API docs, 2026-11. A request without ``max_tokens`` stops after 16
tokens there. Every prompt of a list is answered, each with ``n`` texts, of which ``best_of`` are generated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import json
from ..facts import AnswerFacts, RequestFacts
from ..metering import answer_object, mappings, string
from ..reading import Gathering, count_in, flag_in, object_in, read_models, word_in
from ..reported import reported
from .chat_closing import ChatCloser
from .chat_metering import ChatMeter, finish_of
from .shared import OpenAIDialect, answers_each, ask_usage_in, model_at, read_inputs

DEFAULT_MAX_TOKENS = 16
_BODY_FIELDS = frozenset(
    {
        "model", "prompt", "suffix", "logit_bias", "stop", "stream_options", "user", "metadata", "service_tier",
    }
)  # fmt: skip


class OpenAICompletions(OpenAIDialect):
    """The dialect ``openai.completions``."""

    name = "openai.completions"
    ceiling_field = "max_tokens"

    def read_request(self, body: bytes, path: str = "") -> RequestFacts:
        """Raises ValueError, naming the field, on a body that is no completion request."""
        request = json.decode_object(body)
        stream = flag_in(request, "stream")
        flag_in(request, "echo")
        found = Gathering(self, request, body, path)
        prompts = read_inputs(request, "prompt", found)
        found.add(request.get("suffix"))
        read_models(request, found)
        found.rest(request, known=_BODY_FIELDS)
        found.model = model_at(request, path)
        found.stream = stream
        # Zero is legal: with ``echo`` it scores the prompt and generates nothing.
        found.output_ceiling = count_in(request, "max_tokens", least=0)
        found.implied_ceiling = DEFAULT_MAX_TOKENS
        found.choices = prompts * answers_each(request)
        found.min_output_tokens = 0 if request.get("max_tokens") == 0 else 1
        found.service_tier = word_in(request, "service_tier")
        found.wants_usage = flag_in(object_in(request, "stream_options"), "include_usage") and stream
        return found

    def _ask_usage(self, request: dict[str, Any]) -> None:
        ask_usage_in(request)

    def read_answer(self, facts: RequestFacts, status: int, body: bytes) -> AnswerFacts:
        """A plain answer."""
        answer = answer_object(body)
        if answer is None:
            return AnswerFacts(error=not 200 <= status < 300)
        choices = mappings(answer.get("choices"))
        usage, note = reported(answer.get("usage"))
        refused = bool(answer.get("error")) and not choices and usage is None
        return AnswerFacts(
            usage=usage,
            usage_note=note,
            text=() if usage is not None else _texts(facts, [(_index(each), each.get("text")) for each in choices]),
            model=string(answer.get("model")),
            response_id=string(answer.get("id")),
            finish=finish_of(choices),
            complete=True,
            error=refused or not 200 <= status < 300,
            service_tier=string(answer.get("service_tier")),
        )

    def closer(self, facts: RequestFacts) -> ChatCloser:
        shown = _prompts(facts) * _shown(facts)
        return ChatCloser(choices=shown, delta={"text": ""}, usage_frame=facts.wants_usage, usage_inside=False)

    def meter(self, facts: RequestFacts, *, strip_usage: bool) -> CompletionsMeter:
        return CompletionsMeter(facts, strip_usage=strip_usage)


class CompletionsMeter(ChatMeter):
    """Meters a stream of completions: chat's chunks, with a ``text`` in place of a delta."""

    __slots__ = ("_request",)

    def __init__(self, facts: RequestFacts, *, strip_usage: bool) -> None:
        super().__init__(
            choices=_prompts(facts) * _shown(facts),
            expects_usage=strip_usage or facts.wants_usage,
            strip_usage=strip_usage,
        )
        self._request = facts

    def _read(self, data: Mapping[str, Any]) -> None:
        for choice in mappings(data.get("choices")):
            self._delivered(_index(choice), choice.get("text"))

    def _delivered_text(self) -> tuple[str, ...]:
        super()._delivered_text()
        return _texts(self._request, [(index, deltas[0]) for index, deltas in self._text.items() if deltas])


def _index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _texts(facts: RequestFacts, choices: list[tuple[Any, object]]) -> tuple[str, ...]:
    """What was generated. With ``echo`` an answer begins with its prompt, which is input, and was paid as such."""
    texts = [(index, text) for index, text in choices if isinstance(text, str) and text]
    if facts.body.get("echo"):
        prompt = facts.body.get("prompt")
        prompts = prompt if isinstance(prompt, list) else [prompt]
        texts = [(index, _unechoed(text, prompts, index // _shown(facts))) for index, text in texts]
    return tuple(text for _, text in texts if text)


def _unechoed(text: str, prompts: list[Any], number: int) -> str:
    prompt = prompts[number] if 0 <= number < len(prompts) else None
    return text.removeprefix(prompt) if isinstance(prompt, str) else text


def _shown(facts: RequestFacts) -> int:
    """How many texts are shown for each prompt."""
    return count_in(facts.body, "n", least=1) or 1


def _prompts(facts: RequestFacts) -> int:
    return facts.choices // answers_each(facts.body)
