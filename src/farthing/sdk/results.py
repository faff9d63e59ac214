"""
The paid answer on an exception.

``on_exceed="raise"`` must not throw away what was paid for, so the body becomes the SDK's own typed object again (a
plain dict where that is not possible).
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ..errors import BudgetExceeded, FarthingError
from ..kernel.decision import Decision
from ..wire import json
from .errors import in_family

TYPES = {
    "openai.chat": ("openai.types.chat", "ChatCompletion"),
    "openai.responses": ("openai.types.responses", "Response"),
    "openai.completions": ("openai.types", "Completion"),
    "openai.embeddings": ("openai.types", "CreateEmbeddingResponse"),
    "openai.images": ("openai.types", "ImagesResponse"),
    "anthropic.messages": ("anthropic.types", "Message"),
    "gemini.generate": ("google.genai.types", "GenerateContentResponse"),
    "gemini.embeddings": ("google.genai.types", "EmbedContentResponse"),
    "cohere.chat": ("cohere", "V2ChatResponse"),
}
"""Of each dialect its own SDK's type: the module and the name."""
OTHERS = {
    ("groq", "openai.chat"): ("groq.types.chat", "ChatCompletion"),
    ("mistralai", "openai.chat"): ("mistralai.client.models", "ChatCompletionResponse"),
    ("mistralai", "openai.embeddings"): ("mistralai.client.models", "EmbeddingResponse"),
}
"""Those of SDKs that speak another's dialect."""


def paid(crossed: Decision, dialect: str, body: bytes, *, sdk: str | None) -> FarthingError:
    """The exception of a budget with on_exceed="raise" that a call crossed, its answer attached."""
    return in_family(BudgetExceeded(crossed, result=typed(dialect, body, sdk=sdk)), sdk)


def typed(dialect: str, body: bytes, *, sdk: str | None) -> Any:
    """The answer as the SDK's type, else as a dict, else None (a stream has no single body)."""
    try:
        parsed = json.decode(body)
    except ValueError:
        return None
    module, name = OTHERS.get((sdk or "", dialect)) or TYPES.get(dialect, ("", ""))
    if sdk is None or not module.startswith(sdk) or sdk not in sys.modules:
        return parsed
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return parsed  # this version keeps it elsewhere; the call is paid, and its answer is not to be lost for that
    try:
        return kind.model_validate(parsed)
    except ValueError:
        # A provider that only speaks the dialect roughly: the SDK itself does not validate either.
        return kind.model_construct(**parsed) if isinstance(parsed, dict) else parsed
