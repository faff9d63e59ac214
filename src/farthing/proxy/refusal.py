"""
What a client is told when its request goes no further, in the language that it speaks.

Status, body and headers are what its SDK understands, with the evidence beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import BudgetExceeded, FarthingError, StoreUnavailable, UnmeteredCall, UnpricedModel
from ..kernel.decision import Decision
from ..wire import json
from .upstream import Header

JSON = (b"content-type", b"application/json")
NO_RETRY = (b"x-should-retry", b"false")
RETRY = (b"x-should-retry", b"true")

_GOOGLE = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "RESOURCE_EXHAUSTED", 403: "PERMISSION_DENIED",
    404: "NOT_FOUND", 408: "DEADLINE_EXCEEDED", 413: "INVALID_ARGUMENT", 415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED", 431: "INVALID_ARGUMENT", 502: "UNAVAILABLE", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
}  # fmt: skip
_OPENAI = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "insufficient_quota"}


class Refusal(NamedTuple):
    """An answer of ours: what goes to the client, and the two words for the log."""

    status: int
    headers: list[Header]
    body: bytes
    code: str
    message: str


def refuse(
    family: str,
    status: int,
    code: str,
    message: str,
    *,
    kind: str | None = None,
    evidence: Mapping[str, Any] | None = None,
    headers: tuple[Header, ...] = (NO_RETRY,),
) -> Refusal:
    """
    An error in the dialect of *family*. *kind* is its ``type`` where the status alone does not say it, *evidence* goes
    under ``error.farthing``.
    """
    error: dict[str, Any]
    whole: dict[str, Any]
    if family == "anthropic":
        default = "invalid_request_error" if status < 500 else "api_error"
        error = {"type": _ANTHROPIC.get(status, default), "message": message}
        whole = {"type": "error", "error": error}
    elif family == "gemini":
        reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code, "domain": "farthing"}
        error = {"code": status, "message": message, "status": _GOOGLE.get(status, "UNKNOWN"), "details": [reason]}
        whole = {"error": error}
    else:
        default = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": kind or _OPENAI.get(status, default), "param": None, "code": code}
        # Cohere's clients read the message at the top.
        whole = {"message": message, "error": error} if family == "cohere" else {"error": error}
    error["farthing"] = {"code": code, **(evidence or {})}
    body = json.encode(whole)
    length = (b"content-length", b"%d" % len(body))
    return Refusal(status, [JSON, length, *headers], body, code, message)


def of_error(error: FarthingError, family: str, *, deny_status: int) -> Refusal:
    """The refusal for what the life of a call raised before anything was sent."""
    if isinstance(error, BudgetExceeded):
        return of_decision(error.decision, family, deny_status=deny_status, message=str(error))
    evidence = error.to_dict()
    if isinstance(error, UnpricedModel):
        return refuse(family, 400, "unpriced_model", _unpriced(error), evidence=evidence)
    if isinstance(error, UnmeteredCall):
        reason = error.reason or "its cost has no bound on this side"
        return refuse(family, 400, "unbounded_request", f"the request was not sent: {reason}.", evidence=evidence)
    if isinstance(error, StoreUnavailable):
        message = f"{why_silent(error)}. No budget could be asked, so the request was not sent; it may be tried again."
        return refuse(family, 503, "ledger_unavailable", message, headers=(RETRY,))
    return refuse(family, 500, "internal_error", str(error), evidence=evidence)


def why_silent(error: StoreUnavailable) -> str:
    """Why the ledger does not answer, for those who need not know where it lies."""
    return f"the ledger is unavailable: {error.reason.replace(error.store, 'its file')}"


def of_decision(decision: Decision, family: str, *, deny_status: int, message: str | None = None) -> Refusal:
    """A budget said no. *message* is the decision's, where it has been put together already."""
    headers: list[Header] = [NO_RETRY]
    seconds = decision.retry_after_seconds
    if seconds is not None and seconds > 0:
        headers.append((b"retry-after", str(math.ceil(seconds)).encode()))
    headers += _rate_headers(decision)
    return refuse(
        family,
        deny_status,
        "budget_exceeded",
        decision.message() if message is None else message,
        kind="insufficient_quota",
        evidence=decision.to_dict(),
        headers=tuple(headers),
    )


def _rate_headers(decision: Decision) -> list[Header]:
    """``x-ratelimit-…`` as OpenAI writes them, for the tightest line of each unit that it has a name for."""
    headers: list[Header] = []
    seen: set[str] = set()
    for line in decision.failed:
        if line.unit not in ("tokens", "requests") or line.unit in seen:
            continue
        seen.add(line.unit)
        unit = line.unit.encode()
        headers.append((b"x-ratelimit-limit-" + unit, str(line.limit).encode()))
        headers.append((b"x-ratelimit-remaining-" + unit, str(line.remaining).encode()))
        if line.retry_after_seconds is not None:
            headers.append((b"x-ratelimit-reset-" + unit, _span(line.retry_after_seconds)))
    return headers


def _span(seconds: float) -> bytes:
    """``6m0s``, as OpenAI writes a span of time."""
    whole = math.ceil(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if hours or minutes else ''}{rest}s".encode()


def _unpriced(error: UnpricedModel) -> str:
    where = f" ({error.provider})" if error.provider else ""
    whose = f"budget {error.budget!r} counts USD, and " if error.budget else ""
    return (
        f"{whose}no price is known for model {error.model!r}{where}; an unknown price is not zero, so the request was "
        "not sent. The operator of this proxy can name its price, or choose another policy for unpriced models."
    )
