"""
OpenAI images, by GPT Image models, which report tokens.

``POST …/images/generations`` and, where the body is JSON, ``…/images/edits``. DALL·E was billed by the image: a request
that names no GPT Image model is refused as not metered.

Shapes: openai 3.54 ``types/image*``. An image's tokens have a public table for the first generation only (public API
docs, "Image generation", read 2026-11: at most 6,240 for each of the three sizes): there the hold is proven. For the
models after it (any size, ``xhigh`` and ``max``, a text plan of their own) it is open. Nothing on the wire limits the
output, so the ceiling is all or nothing: it is never lowered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...kernel.usage import Usage
from .. import json
from ..facts import AnswerFacts, RequestFacts
from ..metering import EventMeter, answer_object, event_data, mapping, string
from ..reading import Gathering, count_in, flag_in, model_of
from ..reported import Reported, reported
from .shared import OpenAIDialect

IMAGE_TOKENS = 6_240
"""The dearest image of the first generation: 1024 × 1536, high quality."""
OPEN_IMAGE_TOKENS = 24_576
"""Held for an image of a later model: above what billed usage shows for the largest square at high quality."""
PARTIAL_IMAGE_TOKENS = 100
"""Each partial image of a stream adds as many output tokens (public API docs, "Image generation")."""
PROMPT_OVERHEAD = 32
_GPT_IMAGE = re.compile(r"^(?:gpt-image-|chatgpt-image)")
_PROVEN = re.compile(r"^gpt-image-1(?:-mini)?(?:-\d{4}-\d\d-\d\d)?$")
_BODY_FIELDS = frozenset(
    {
        "model", "prompt", "background", "moderation", "output_format", "quality", "response_format", "size", "style",
        "user", "safety_identifier", "images", "mask", "input_fidelity",
    }
)  # fmt: skip


class OpenAIImages(OpenAIDialect):
    """The dialect ``openai.images``."""

    name = "openai.images"

    def read_request(self, body: bytes, path: str = "") -> RequestFacts:
        """Raises ValueError where the request is multipart, or its answer reports no usage that covers its cost."""
        if body.startswith(b"--"):
            raise ValueError("multipart bodies are not read")
        request = json.decode_object(body)
        model = model_of(request)
        if not _GPT_IMAGE.match(model):
            raise ValueError(f"model {model!r:.80} is not known to report tokens: it may be billed by the image")
        if request.get("output_format") in ("svg", "gif"):
            raise ValueError(f"output_format {request['output_format']!r} is billed apart from the image's tokens")
        found = Gathering(self, request, body, path)
        found.no_text = True
        found.overhead_tokens += PROMPT_OVERHEAD
        found.add(request.get("prompt"))
        if request.get("images") or request.get("mask"):
            found.open("image input")
        proven = _PROVEN.match(model) is not None
        if not proven:
            found.open(f"image output of {model:.60}")
        found.rest(request, known=_BODY_FIELDS)
        partial = count_in(request, "partial_images", least=0) or 0
        most = (IMAGE_TOKENS if proven else OPEN_IMAGE_TOKENS) + PARTIAL_IMAGE_TOKENS * partial
        found.model = model
        found.stream = flag_in(request, "stream")
        found.output_ceiling = most
        found.min_output_tokens = most
        found.choices = count_in(request, "n", least=1) or 1
        found.wants_usage = True
        return found

    def read_answer(self, facts: RequestFacts, status: int, body: bytes) -> AnswerFacts:
        """A plain answer. Images cannot be counted: without a figure it is no complete answer, and costs its hold."""
        failed = not 200 <= status < 300
        answer = answer_object(body)
        if answer is None:
            return AnswerFacts(error=failed)
        usage, note = images_reported(answer.get("usage"))
        refused = bool(answer.get("error")) and answer.get("data") is None and usage is None
        return AnswerFacts(usage=usage, usage_note=note, complete=usage is not None, error=refused or failed)

    def meter(self, facts: RequestFacts, *, strip_usage: bool) -> ImagesMeter:
        return ImagesMeter(images=facts.choices)


class ImagesMeter(EventMeter):
    """Meters a stream of images: each ends with an event that tells the tokens of that image."""

    __slots__ = ("_ended", "_error", "_first_seen", "_images", "_notes", "_usage")

    def __init__(self, *, images: int) -> None:
        super().__init__(strip=False)
        self._images = images
        self._ended = 0
        self._usage: Usage | None = None
        self._notes: list[str] = []
        self._first_seen = False
        self._error = False

    def facts(self) -> AnswerFacts:
        """What has been seen so far."""
        usage = self._usage if self._ended >= self._images else None
        return AnswerFacts(
            usage=usage,
            usage_note="; ".join(self._notes) or None if usage is not None else None,
            complete=self._error or usage is not None,
            error=self._error,
        )

    def _see(self, frame: bytes) -> bool:
        if b'.completed"' not in frame and b'"error"' not in frame:
            self._first_seen = self._first_seen or b"data:" in frame
            return False
        data = event_data(frame)
        kind = string((data or {}).get("type")) or ""
        if data is not None and kind.endswith(".completed"):
            self._ended += 1
            usage, note = images_reported(data.get("usage"))
            if usage is not None:
                self._usage = usage if self._usage is None else self._usage + usage
            if note is not None:
                self._notes.append(note)
        elif data is not None and (kind == "error" or data.get("error")):
            self._error = self._error or not self._first_seen
        self._first_seen = True
        # All images, or an error in place of the first.
        self.complete = self._error or self._ended >= self._images
        return False

    def _read(self, data: Mapping[str, Any]) -> None:
        """No event holds text."""


def images_reported(value: object) -> Reported:
    """The figure; where it does not say what the output is, it is the images."""
    usage = dict(mapping(value))
    if "output_tokens" in usage and not isinstance(usage.get("output_tokens_details"), dict):
        usage["output_tokens_details"] = {"image_tokens": usage["output_tokens"]}
    return reported(usage)
