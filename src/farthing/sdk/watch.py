"""
What passes by: calls to a provider that leave through a client which nobody handed over.

From the first budget on, the seams of the HTTP libraries are watched. Without :func:`~.install.install` a call that
bypasses a hard budget is said aloud, once for each client, and nothing about it is changed. With it, httpx's calls are
governed, and what leaves by another library is refused under a hard budget: nothing here can measure it.
"""

from __future__ import annotations

import functools
import logging
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from ..errors import FarthingError, UnmeteredCall
from ..runtime.ambient import current
from ..runtime.default import runtime
from ..runtime.frames import frames_to_user
from .clients import can_send_over_httpx
from .errors import by_openai
from .passing import INSIDE, within, within_async
from .seams import Leaving, Seam, wrap_all

log = logging.getLogger("farthing")

Hosts = tuple[tuple[str, str], ...]


class UngovernedClientWarning(UserWarning):
    """A client's calls pass without a budget and without a meter, though a budget may be in force."""


class _State:
    """``installed``: the hosts declared to install(), None while it is not in force."""

    installed: Hosts | None = None


state = _State()
_told: weakref.WeakSet[Any] = weakref.WeakSet()
_told_hosts: set[str] = set()

ADVICE = {
    "aiohttp": "let it send over httpx (farthing.instrument(client) moves google-genai there by itself)",
    "urllib3": "use an SDK that stands on httpx, or hold for the call by hand: farthing.hold(), farthing.record()",
    "http.client": "use an SDK that stands on httpx, or hold for the call by hand: farthing.hold(), farthing.record()",
    "lm15": 'let DSPy send over LiteLLM: dspy.LM(…, engine="litellm")',
    "websockets": "hold for the session by hand: farthing.hold(), farthing.record()",
    "websocket-client": "hold for the session by hand: farthing.hold(), farthing.record()",
    "grpc": "use a client over HTTP (google-genai speaks to Vertex AI so), or hold by hand: farthing.hold()",
}
"""What to do about a library that cannot be governed."""


def begin() -> None:
    """A budget is being entered: watch from now on, unless the settings say not to."""
    if runtime().settings.watch:
        wrap_all(_wrap)


def watch_now() -> None:
    """The same for install(), whatever the settings say."""
    wrap_all(_wrap)


def _wrap(seam: Seam, original: Callable[..., Any]) -> Callable[..., Any]:
    if seam.read is not None:
        return _seen(seam, original, seam.read)
    if seam.library == "google-genai":
        return _google(original)
    if seam.library == "litellm":
        return _litellm(original)
    return _transport(original, asynchronous=seam.method == "handle_async_request")


def _transport(original: Callable[..., Any], *, asynchronous: bool) -> Callable[..., Any]:
    """A transport class's own method: governed where install() is in force, else only looked at."""
    from .hook import is_governed, send, send_async
    from .opening import Sender

    governed = send_async if asynchronous else send

    @functools.wraps(original)
    def handle(self: Any, request: Any) -> Any:
        # A transport that was instrumented by itself comes here from inside of its own hook.
        if INSIDE.get() or is_governed(self):
            return original(self, request)
        hosts = state.installed
        if hosts is not None:
            return governed(functools.partial(original, self), Sender(hosts=hosts, in_care=False), request)
        if current().bindings:
            url = request.url
            path, library = url.raw_path.decode("ascii"), type(request).__module__.partition(".")[0]
            _notice(Leaving(self, request.method, url.netloc.decode("ascii"), path, request.headers), library)
        # What it sends by (an aiohttp session, say) would be told of it a second time.
        inner = functools.partial(original, self)
        return within_async(inner, request) if asynchronous else within(inner, request)

    return handle


def _google(original: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a google-genai client sends over aiohttp: not while install() is in force, if it has a choice."""

    @functools.wraps(original)
    def use_aiohttp(self: Any) -> bool:
        return original(self) and not (state.installed is not None and can_send_over_httpx(self))

    return use_aiohttp


def _litellm(original: Callable[..., Any]) -> Callable[..., Any]:
    """Where LiteLLM makes an error of its own of whatever comes out of a client: a refusal stays what it is."""

    @functools.wraps(original)
    def made(*given: Any, **named: Any) -> Any:
        for value in (*given, *named.values()):
            if isinstance(value, BaseException):
                for error in (value, value.__context__):
                    # Its own error of a refusal tells the refusal's message; any other may only have come after one.
                    if isinstance(error, FarthingError) and str(error) in str(value):
                        raise error from error.__cause__
        return original(*given, **named)

    return made


def _seen(seam: Seam, original: Callable[..., Any], read: Callable[..., Leaving]) -> Callable[..., Any]:
    """A method of a library that cannot be governed."""

    @functools.wraps(original)
    def leave(*given: Any, **named: Any) -> Any:
        if not INSIDE.get() and (state.installed is not None or current().bindings):
            _notice(read(given, named), seam.library)
        return original(*given, **named)

    return leave


def _notice(leaving: Leaving, library: str) -> None:
    """Say that this call passes, or refuse it if install() is in force. Only what is recognised as a provider's."""
    from ..wire.recognise import recognise
    from ..wire.routes import COSTS_NOTHING

    names = {str(name): "" for name in leaving.headers}
    hosts = state.installed
    known, openai = dict(hosts or ()), by_openai(str(leaving.headers.get("user-agent", "")))
    found = recognise(leaving.method, leaving.host, leaving.path, headers=names, known_hosts=known, by_openai=openai)
    if found.verdict in ("other", *COSTS_NOTHING):
        return
    here, ambient = runtime(), current()
    url = f"{leaving.host}{leaving.path.partition('?')[0]}"
    hard = here.hard_budget(ambient, {**dict(ambient.tags), "provider": found.provider or ""})
    if hosts is not None and hard is not None:
        reason = f"it leaves by {library}, which farthing cannot govern; {ADVICE[library]}"
        raise UnmeteredCall(leaving.method, url, budget=hard.title, reason=reason)
    if hard is None and hosts is None:
        return
    remedy = ADVICE.get(library, "hand the client to farthing.instrument(), or call farthing.install() at the start")
    whose = f" past budget {hard.title!r}" if hard is not None else ""
    _say_once(
        leaving.client,
        f"{leaving.method} {url} goes out over {library}{whose}, ungoverned: nothing is held or counted for it, nor "
        f"for any other call of this client. To govern it, {remedy}.",
    )


def _say_once(client: object, message: str) -> None:
    """
    Once for each client: an object, or a host where no object lives from one call to the next.

    Where warnings are errors, this is one, for every call: then it must not be what makes an SDK's next try pass.
    """
    told: Any = _told_hosts if isinstance(client, str) else _told
    if client in told:
        return
    if log.hasHandlers():
        log.warning(message)
    warnings.warn(message, UngovernedClientWarning, stacklevel=frames_to_user())
    told.add(client)
