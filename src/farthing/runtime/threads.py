"""
Threads follow the scope they are started in; tasks of a pool follow the scope they are submitted in.

asyncio tasks inherit context variables, plain threads do not, and fifty threads that do not inherit the budget spend
fifty budgets. So starting a thread and submitting to a pool carry our one variable along, and nothing else. Every task
gets it set, also to empty: a pool's worker that was born inside budget A must not run a later task as A.

gevent's greenlets begin with an empty context too, so they are told the same where gevent is loaded.

Installed on the first use of a budget or of tags; ``follow(False)`` takes it out again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import Context
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import forks
from .ambient import Ambient, current, enter, entered_in

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_originals: list[tuple[Any, str, Any]] = []
_following = False
_greenlets: Any = None
"""gevent's class of them, once they follow."""
_lock = forks.lock()


def follow(on: bool = True) -> None:
    """Carry the ambient scope into threads, thread pools and greenlets, or stop doing so. Idempotent."""
    global _following  # noqa: PLW0603 - what of this process is replaced is state of the process
    if _following == on and (_greenlets is not None or not on or sys.modules.get("gevent") is None):
        return
    with _lock:
        if _following != on:
            _put_back()
            if on:
                _install()
        if on and _greenlets is None and sys.modules.get("gevent") is not None:
            _install_greenlets()
        # Last: whoever sees it goes on at once, and starts threads.
        _following = on


def _put_back() -> None:
    global _greenlets  # noqa: PLW0603 - as above
    if _greenlets is not None:
        _greenlets.remove_spawn_callback(_spawned)
        _greenlets = None
    while _originals:
        owner, name, original = _originals[-1]
        if original is not None:
            setattr(owner, name, original)
        elif name in vars(owner):
            delattr(owner, name)
        _originals.pop()


def _install() -> None:
    with forks.loading():
        from multiprocessing.pool import ThreadPool

        try:
            from concurrent.futures import ThreadPoolExecutor as Pool
        except RuntimeError:
            # The main thread has ended, and other threads are waited for: this module cannot be loaded any more, so
            # there will be no such pool.
            pass
        else:
            _replace(Pool, "submit", _submit)
    _replace(threading.Thread, "start", _start)
    for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
        # ThreadPool's public methods all end in one of these; a pool of processes inherits the originals untouched.
        _replace(ThreadPool, name, _pooled)


def _install_greenlets() -> None:
    global _greenlets  # noqa: PLW0603 - as above
    with forks.loading():
        greenlets, pool = import_module("gevent").Greenlet, import_module("gevent.threadpool").ThreadPool
    _replace(pool, "spawn", _pooled)
    greenlets.add_spawn_callback(_spawned)
    _greenlets = greenlets


def _spawned(greenlet: Any) -> None:
    """A greenlet is about to start, from here."""
    ambient = current()
    if ambient != Ambient():
        greenlet.gr_context = entered_in(greenlet.gr_context or Context(), ambient)


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    _originals.append((owner, name, owner.__dict__.get(name)))
    setattr(owner, name, make(getattr(owner, name)))


def _start(original: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    @wraps(original)
    def start(self: threading.Thread) -> None:
        ambient = current()
        if ambient == Ambient():
            return original(self)
        run, own = self.run, vars(self).get("run")

        def put_back() -> None:
            # The thread owns its method again: no cycle is left, and a subclass may look at self.run.
            vars(self).pop("run", None)
            if own is not None:
                self.run = own  # type: ignore[method-assign]

        def follow_then_run() -> None:
            enter(ambient)
            put_back()
            run()

        self.run = follow_then_run  # type: ignore[method-assign]
        try:
            original(self)
        except BaseException:
            # The system has no thread to give now: it may be started again, perhaps from somewhere else.
            put_back()
            raise
        return None

    return start


def _submit(original: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    @wraps(original)
    def submit(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return original(self, _Within(current(), fn), *args, **kwargs)

    return submit


def _pooled(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def method(self: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return original(self, _Within(current(), func), *args, **kwargs)

    return method


class _Within:
    """A function that runs under the given scope, and leaves the worker's own as it was."""

    __slots__ = ("_ambient", "_call")

    def __init__(self, ambient: Ambient, call: Callable[..., Any]) -> None:
        self._ambient = ambient
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = current()
        enter(self._ambient)
        try:
            return self._call(*args, **kwargs)
        finally:
            enter(before)
