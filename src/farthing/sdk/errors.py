"""
Errors in an SDK's own family, and the way out for them.

An SDK wraps or retries what it does not know: the Anthropic client sends a request three times when a foreign exception
comes out of its transport. So what refuses a call is raised as a class that is both ours and that SDK's base error,
made on demand: ``except BudgetExceeded`` works, and so does ``except openai.OpenAIError``.

Some SDKs (groq 1.7, openai before it let its own errors pass) retry and wrap even their own. They are given an answer
instead, which raises the error where the SDK looks whether an answer is one, outside of what it retries.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from ..errors import FarthingError

STATUS = 402
"""The status of a refusal: no SDK retries it."""
BASE_ERRORS = {"openai": "OpenAIError", "anthropic": "AnthropicError", "groq": "GroqError"}
"""SDKs that retry or wrap a foreign exception, and the name of the error that all of their own derive from."""
_FAMILIES = {
    **{sdk: (sdk, name) for sdk, name in BASE_ERRORS.items()},
    "google": ("google.genai.errors", "APIError"),
    "mistralai": ("mistralai.client.errors.mistralerror", "MistralError"),
    "cohere": ("cohere.core.api_error", "ApiError"),
    "litellm": ("litellm.exceptions", "OpenAIError"),
}
"""Of each SDK the module and name of the error that all of its own derive from."""
PACKAGES = tuple(_FAMILIES)
_AGENT = re.compile(
    r"(?:async)?(?:azure)?(openai|anthropic|groq)\w*/python"
    r"|(google)-genai-sdk/|(mistral)-client-python/|(cohere|litellm)/",
    re.IGNORECASE,
)
"""How each SDK's clients name themselves, those for other clouds too: ``AsyncAzureOpenAI/Python 3.54.0``."""


def sdk_of(client: object) -> str | None:
    """The SDK that a client's class (or one that it derives from) belongs to, or that a module is."""
    names = [client.__name__] if isinstance(client, ModuleType) else [kind.__module__ for kind in type(client).__mro__]
    for name in names:
        package = name.partition(".")[0]
        if package in PACKAGES:
            return package
    return None


def sdk_named(agent: str) -> str | None:
    """The SDK whose clients call themselves so: ``OpenAI/Python 3.54.0``. None for all others."""
    found = _AGENT.match(agent)
    if not found:
        return None
    name = found[found.lastindex or 0].lower()
    return "mistralai" if name == "mistral" else name


def sdk_of_request(request: object, told: str | None) -> str | None:
    """
    The SDK that a request says it comes from; or the one that its client was *told* to be of; or, where its user has
    named it otherwise, one that sends its other headers. None for all others.
    """
    headers: Mapping[str, str] = getattr(request, "headers", {})
    sdk = sdk_named(headers.get("user-agent", "")) or told
    if sdk is not None or headers.get("x-stainless-lang") != "python":
        return sdk
    if "anthropic-version" in headers:
        return "anthropic"
    return next((sdk for sdk in ("openai", "groq") if sdk in sys.modules), None)


def by_openai(agent: str) -> bool:
    """Whether OpenAI's own SDK names itself so: others from the same generator send its other headers."""
    return agent.partition("/")[0].endswith("OpenAI")


def in_family(error: FarthingError, sdk: str | None) -> FarthingError:
    """The same error, as one that this SDK lets through untouched. Evidence and cause stay on it."""
    kind = None if sdk not in _FAMILIES else _combined(type(error), sdk)  # type: ignore[arg-type]
    if kind is None:
        return error
    made = kind.__new__(kind, *error.args)
    made.args = error.args
    made.__dict__.update(_told(error, sdk))
    made.__dict__.update(error.__dict__)
    made.__cause__ = error.__cause__
    return made


def refusal(error: Exception, message: Any, sdk: str | None) -> Any:
    """
    Refuse a call: raises the error in its SDK's family; or returns a response that does, where an SDK retries whatever
    is raised, and for what a user's own function raised: that must reach the caller as it is, once. *message* is the
    request, or a paid answer that is not to be had: httpx's, or httpx2's.
    """
    ours = isinstance(error, FarthingError)
    refused = in_family(error, sdk) if isinstance(error, FarthingError) else error
    if sdk not in BASE_ERRORS or (ours and not _retries_its_own(sdk)):
        raise refused from refused.__cause__
    answer = _refusing(sys.modules[type(message).__module__.partition(".")[0]])
    return answer(refused)


@cache
def _retries_its_own(sdk: str) -> bool:
    """Whether a client of this SDK treats its own base error, raised while it sends, like a broken connection."""
    base = BASE_ERRORS.get(sdk)
    client = getattr(sys.modules.get(f"{sdk}._base_client"), "SyncAPIClient", None)
    # One that handles it names it in one of its methods: no version says so as surely.
    codes = [method.__code__ for method in vars(client).values() if hasattr(method, "__code__")] if client else []
    return base is not None and bool(codes) and not any(base in code.co_names for code in codes)


@cache
def _refusing(http: Any) -> type:
    """An answer of this HTTP module that no SDK can take for one: status 402, and every way to check it raises."""

    class Refusal(http.Response):  # type: ignore[misc]
        def __init__(self, error: Exception) -> None:
            headers = {"x-should-retry": "false"}
            super().__init__(STATUS, headers=headers, json=_body(error))
            self._error = error

        def raise_for_status(self) -> Any:
            raise self._error from self._error.__cause__

        @property
        def is_success(self) -> bool:
            # What the Anthropic client asks instead.
            raise self._error from self._error.__cause__

    return Refusal


def _body(error: Exception) -> dict[str, Any]:
    return {"error": {"message": str(error), "code": "budget_exceeded"}}


def _told(error: Exception, sdk: str | None) -> dict[str, Any]:
    """What handlers of this SDK's errors read from them: those of the others have nothing in common."""
    match sdk:
        case "openai" | "litellm":
            return {"status_code": STATUS}  # what has none, LiteLLM's router tries again
        case "google":
            status = "RESOURCE_EXHAUSTED"
            return {"code": STATUS, "status": status, "message": str(error), "details": _body(error), "response": None}
        case "mistralai":
            told = {"message": str(error), "status_code": STATUS, "body": str(error)}
            return {**told, "headers": {}, "raw_response": None}
        case "cohere":
            return {"headers": {}, "status_code": STATUS, "body": _body(error)}
    return {}


@cache
def _combined(kind: type[FarthingError], sdk: str) -> type[FarthingError] | None:
    module, name = _FAMILIES[sdk]
    base = getattr(sys.modules.get(module), name, None)
    if not isinstance(base, type) or issubclass(kind, base):
        return None
    namespace = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    # As ours: some families show, compare and hash their errors by fields.
    namespace |= {of: getattr(kind, of) for of in ("__str__", "__repr__", "__eq__", "__hash__")}
    return type(kind.__name__, (kind, base), namespace)
