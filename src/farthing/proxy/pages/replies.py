"""What pages answer with: JSON, or an error in the form of the API's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from ...errors import ConfigError, FarthingError, HoldConflict, HoldNotFound, StoreUnavailable
from ...wire import json
from ..callers.identity import Refused
from ..refusal import refuse, why_silent
from .page import Reply, Request

NO_STORE = (b"cache-control", b"no-store")


def reply_json(value: Any, *, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """Figures of this instant: nothing between here and the client may keep them."""
    return Reply(status, json.encode(value), headers=(NO_STORE, *headers))


def reply_error(status: int, code: str, message: str, *, evidence: Mapping[str, Any] | None = None) -> Reply:
    """``{"error": {"message", "type", "code", "farthing"}}``."""
    refusal = refuse("openai", status, code, message, evidence=evidence, headers=())
    headers = (NO_STORE, (b"www-authenticate", b"Bearer")) if status == 401 else (NO_STORE,)
    return Reply(status, refusal.body, headers=headers)


def query_of(request: Request, *known: str) -> dict[str, str]:
    """The query's parameters. Raises ValueError for one that this page does not know."""
    try:
        pairs = parse_qsl(request.query, keep_blank_values=True, strict_parsing=bool(request.query), max_num_fields=32)
    except ValueError as error:
        raise ValueError(f"the query cannot be read: {error}") from error
    found = {name: value for name, value in pairs if name != "key"}
    for name in found:
        if name not in known:
            raise ValueError(f"unknown parameter {name!r}; known are {', '.join(known) or 'none'}")
    return found


async def answered(request: Request, method: str, run: Callable[[], Awaitable[Reply]]) -> Reply:
    """What *run* answers to this method; what it raises, as the reply that says so."""
    if request.method != method:
        refused = reply_error(405, "method_not_allowed", f"{request.path} answers {method} only")
        return refused._replace(headers=(*refused.headers, (b"allow", method.encode())))
    try:
        return await run()
    except Refused as error:
        return reply_error(error.status, error.code, str(error))
    except StoreUnavailable as error:
        return reply_error(503, "ledger_unavailable", f"{why_silent(error)}. It may be asked again.")
    except FarthingError as error:
        return reply_error(_status_of(error), _code_of(error), str(error), evidence=error.to_dict())
    except ValueError as error:
        return reply_error(400, "invalid_request", str(error))


def _status_of(error: FarthingError) -> int:
    if isinstance(error, HoldNotFound):
        return 404
    if isinstance(error, HoldConflict):
        return 409
    return 400 if isinstance(error, ConfigError) else 500


def _code_of(error: FarthingError) -> str:
    if isinstance(error, HoldNotFound):
        return "not_found"
    return "conflict" if isinstance(error, HoldConflict) else "invalid_request"
