"""
What the dialects have in common: a request that is sent with another model, another ceiling, a usage figure asked for.

Each says where in a body its own words stand. All that a change does not name stays in its place, to the byte.
"""

from __future__ import annotations

from typing import Any

from . import json
from .facts import Closer, RequestFacts


class JsonDialect:
    """Base of a :class:`~farthing.wire.facts.Dialect`: its requests are JSON objects. *provider*: who is spoken to."""

    name: str
    provider: str
    """Its own provider, unless another one speaks it."""
    ceiling_field: str | None = None
    """The field of a ceiling on the output; None where a request has none to set."""

    def __init__(self, provider: str | None = None) -> None:
        if provider is not None:
            self.provider = provider

    def rewrite(
        self,
        facts: RequestFacts,
        *,
        model: str | None = None,
        output_ceiling: int | None = None,
        ask_usage: bool = False,
    ) -> bytes:
        """The same request with what is given changed, every other field in its place."""
        request = dict(facts.body)
        if model is not None:
            self._set_model(request, model)
        if output_ceiling is not None:
            self._set_ceiling(request, output_ceiling)
        if ask_usage:
            self._ask_usage(request)
        return json.encode(request)

    def rewrite_path(self, facts: RequestFacts, *, model: str) -> str | None:
        """None: the model stands in the body."""
        return None

    def closer(self, facts: RequestFacts) -> Closer | None:
        """None: an answer has no text to cut."""
        return None

    def _set_model(self, request: dict[str, Any], model: str) -> None:
        request["model"] = model

    def _set_ceiling(self, request: dict[str, Any], ceiling: int) -> None:
        if self.ceiling_field is not None:
            request[self.ceiling_field] = ceiling

    def _ask_usage(self, request: dict[str, Any]) -> None:
        """Nothing to ask for: streams carry their figure unasked."""
