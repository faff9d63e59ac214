"""
Reading a request body: fields with checks that name them, and the gathering of all that a provider will tokenise.

The rule of all dialects: what is known is counted as what it is; what is not known is counted as its whole JSON text,
and if it might bring in more than its text, the request is *open*. Nothing is left out because it is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import json
from .facts import Dialect, Image, RequestFacts

MAX_COUNT = 2**53
OTHER_MODELS = "other models that may answer it"
"""Why a request is open that names models to go on to: what is billed is the price of the one that answers."""
MODEL_LENGTH_MAX = 256


def model_of(body: Mapping[str, Any]) -> str:
    """The model's id. Raises ValueError if it is missing, or can be no name: it goes into logs, rows and reports."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise ValueError(f"model must be a non-empty string, not {model!r:.80}")
    if len(model) > MODEL_LENGTH_MAX or not model.isprintable():
        raise ValueError(f"model must be a name of at most {MODEL_LENGTH_MAX} printable characters, not {model!r:.80}")
    return model


def count_in(body: Mapping[str, Any], field: str, *, least: int) -> int | None:
    """A whole number that a request may set, at least *least*; None where it is absent or null."""
    value = body.get(field)
    if type(value) is int and least <= value <= MAX_COUNT:
        return value
    if isinstance(value, float) and value.is_integer() and least <= value <= MAX_COUNT:
        return int(value)
    if value is not None:
        raise ValueError(f"{field} must be a whole number of at least {least}, not {value!r:.80}")
    return None


def flag_in(body: Mapping[str, Any], field: str) -> bool:
    """A switch; False where it is absent or null."""
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{field} must be true or false, not {value!r:.80}")
    return bool(value)


def word_in(body: Mapping[str, Any], field: str) -> str | None:
    """A string; None where it is absent or null."""
    value = body.get(field)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{field} must be a string, not {value!r:.80}")
    return value


def objects_in(body: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    """A list of JSON objects; empty where it is absent or null."""
    value = body.get(field)
    if value is None:
        return []
    if isinstance(value, list):
        for item in value:
            if type(item) is not dict:
                break
        else:
            return value
    raise ValueError(f"{field} must be a list of objects")


def object_in(body: Mapping[str, Any], field: str) -> dict[str, Any]:
    """A JSON object; empty where it is absent or null."""
    value = body.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{field} must be an object, not {value!r:.80}")
    return value


def read_models(body: Mapping[str, Any], found: Gathering) -> None:
    """OpenRouter's ``models``, and that of gateways like it: where the first fails (a prompt too long …), the next."""
    if body.get("models") not in (None, [], [body.get("model")]):
        found.open(OTHER_MODELS)


class Gathering(RequestFacts):
    """The facts of one request, and what it brings to the provider's tokeniser, as they are found."""

    text: list[str]
    # Made when the first is found, for nearly all requests have neither.
    images: list[Image]
    open_reasons: dict[str, None]

    def __init__(
        self, dialect: Dialect, request: dict[str, Any], body: bytes, path: str = "", overhead_tokens: int = 0
    ) -> None:
        self.dialect = dialect.name
        self.provider = dialect.provider
        self.body = request
        self.body_bytes = len(body)
        self.path = path
        self.text = []
        self.overhead_tokens = overhead_tokens

    def add(self, text: Any) -> None:
        """A piece of text. Anything but a string is counted as its JSON text; null and empty are nothing."""
        if isinstance(text, str):
            if text:
                self.text.append(text)
        elif text or (text is not None and not isinstance(text, (dict, list))):
            self.text.append(json.text_of(text))

    def add_image(self, size: tuple[int | None, int | None], *, detail: Any) -> None:
        if not self.images:
            self.images = []
        self.images.append(Image(*size, detail if isinstance(detail, str) and detail else "auto"))

    def open(self, reason: str) -> None:
        """Something whose tokens have no bound on this side."""
        if not self.open_reasons:
            self.open_reasons = {}
        self.open_reasons[reason] = None

    def open_output(self, reason: str) -> None:
        """An answer in something else than text."""
        self.open(reason)
        self.no_text = True

    def open_unknown(self, what: str, kind: Any, value: Any) -> None:
        """Something of a kind that is not known here: its text counts, and it may be more than its text."""
        self.add(value)
        self.open(f"unknown {what} {kind!r:.60}" if kind is not None else f"unknown {what}")

    def rest(self, holder: Mapping[str, Any], *, known: frozenset[str]) -> None:
        """
        The text of the fields that are not *known*: strings, lists and objects, for a template may print them.

        Numbers and switches steer the sampling and cost nothing.
        """
        if known.issuperset(holder):
            return
        for field, value in holder.items():
            if field not in known and isinstance(value, (str, list, dict)):
                self.add(value)


def without(holder: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    """A copy that lacks *fields*."""
    return {key: value for key, value in holder.items() if key not in fields}
