"""What OpenAI's endpoints have in common: errors, the refusal of unknown fields, the usage object of completions."""

from __future__ import annotations

from typing import Any, ClassVar

from ...kernel.usage import Usage
from ..endpoint import Body, Endpoint, Rejection, event, require_integer

_CODES = {"type": "invalid_type", "minimum": "integer_below_min_value"}


def refuse(message: str, field: str, problem: str) -> Rejection:
    """OpenAI's refusal of a field's value."""
    return Rejection(message, param=field, code=_CODES[problem])


def missing(field: str) -> Rejection:
    """OpenAI's refusal of a request without a field it must have."""
    return Rejection(f"Missing required parameter: '{field}'.", param=field, code="missing_required_parameter")


def error_object(rejection: Rejection) -> Body:
    """The object under ``error``."""
    return {
        "message": rejection.message,
        "type": rejection.kind,
        "param": rejection.param,
        "code": rejection.code,
    }


class OpenAIEndpoint(Endpoint):
    """Errors and field checks in OpenAI's shape."""

    error_kinds: ClassVar[dict[int, tuple[str, str | None]]] = {
        400: ("invalid_request_error", None),
        401: ("invalid_request_error", "invalid_api_key"),
        402: ("insufficient_quota", "insufficient_quota"),
        429: ("requests", "rate_limit_exceeded"),
        500: ("server_error", None),
    }

    def check_fields(self, body: Body) -> None:
        for field in body:
            if field not in self.fields:
                raise Rejection(f"Unrecognized request argument supplied: {field}")

    def require(self, body: Body) -> None:
        """Refuses a body without the fields that the endpoint must have, or with a stream option but no stream."""
        if not isinstance(body.get("model"), str) or not body["model"]:
            raise Rejection("you must provide a model parameter")
        for field in self.required:
            if body.get(field) is None:
                raise missing(field)
        if body.get("stream_options") is not None and not body.get("stream"):
            raise Rejection(
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
            )

    def at_least(self, body: Body, field: str, minimum: int) -> None:
        """Refuses a field that is there and is not an integer >= *minimum*."""
        require_integer(body, field, minimum=minimum, refuse=refuse)

    def error(self, rejection: Rejection, request_id: str) -> Body:
        return {"error": error_object(rejection)}

    def stream_error(self, rejection: Rejection, request_id: str) -> bytes:
        return event({"error": error_object(rejection)})


def wants_usage(body: Body) -> bool:
    """The request asks for a usage chunk at the end of its stream."""
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def completion_usage(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object of completions: the prompt contains cached input, the completion reasoning."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": usage.input_audio + usage.cached_audio,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.output_audio,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
