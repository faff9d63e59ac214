"""
Functions whose body runs in a scope: plain, async, generator and async generator functions.

``open_scope`` is called when the body begins and gives the scope to run it in, and the budget that it is about, if it
is about one; what stands between two steps of a generator runs in its caller's own. A plain function may return its
work instead of doing it (a coroutine or a generator, where another decorator hides what it wraps): then that work runs
in the scope too. A denial of that budget, if it truncates, ends the body quietly.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from ..calls.exceeding import ends_quietly
from ..errors import BudgetExceeded
from ..runtime.ambient import Ambient, Binding, current, enter

Open = Callable[[], tuple[Ambient, Binding | None]]


def around(function: Callable[..., Any], open_scope: Open) -> Callable[..., Any]:
    """The function with its body in the scope, of the same kind as it is."""
    if inspect.isasyncgenfunction(function):
        return _async_generator(function, open_scope)
    if inspect.isgeneratorfunction(function):
        return _generator(function, open_scope)
    if inspect.iscoroutinefunction(function):
        return _coroutine(function, open_scope)
    return _plain(function, open_scope)


def _plain(function: Callable[..., Any], open_scope: Open) -> Callable[..., Any]:
    def governed(*args: Any, **kwargs: Any) -> Any:
        inside, own = open_scope()
        try:
            result = _within(inside, functools.partial(function, *args, **kwargs))
        except BudgetExceeded as error:
            if own is not None and ends_quietly(error, own):
                return None
            raise
        for is_work, cover in _WORK:
            if is_work(result):
                return cover(lambda: result, lambda: (inside, own))()
        return result

    return governed


def _coroutine(function: Callable[..., Any], open_scope: Open) -> Callable[..., Any]:
    async def governed(*args: Any, **kwargs: Any) -> Any:
        outside = current()
        inside, own = open_scope()
        enter(inside)
        try:
            return await function(*args, **kwargs)
        except BudgetExceeded as error:
            if own is not None and ends_quietly(error, own):
                return None
            raise
        finally:
            enter(outside)

    return governed


def _generator(function: Callable[..., Any], open_scope: Open) -> Callable[..., Any]:
    def governed(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inside, own = open_scope()
        body = function(*args, **kwargs)
        step: Callable[[], Any] = functools.partial(next, body)
        while True:
            outside = current()
            enter(inside)
            try:
                value = step()
            except StopIteration as stop:
                return stop.value
            except BudgetExceeded as error:
                if own is not None and ends_quietly(error, own):
                    return None
                raise
            finally:
                inside = current()
                enter(outside)
            try:
                sent = yield value
            except GeneratorExit:
                _within(inside, body.close)
                raise
            except BaseException as error:  # noqa: BLE001 - handed to the body, as a plain generator would have it
                step = functools.partial(body.throw, error)
            else:
                step = functools.partial(body.send, sent)

    return governed


def _async_generator(function: Callable[..., Any], open_scope: Open) -> Callable[..., Any]:
    async def governed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inside, own = open_scope()
        body = function(*args, **kwargs)
        step: Callable[[], Any] = body.__anext__
        while True:
            outside = current()
            enter(inside)
            try:
                value = await step()
            except StopAsyncIteration:
                return
            except BudgetExceeded as error:
                if own is not None and ends_quietly(error, own):
                    return
                raise
            finally:
                inside = current()
                enter(outside)
            try:
                sent = yield value
            except GeneratorExit:
                outside = current()
                enter(inside)
                try:
                    await body.aclose()
                finally:
                    enter(outside)
                raise
            except BaseException as error:  # noqa: BLE001 - handed to the body, as a plain generator would have it
                step = functools.partial(body.athrow, error)
            else:
                step = functools.partial(body.asend, sent)

    return governed


_WORK = (
    (inspect.iscoroutine, _coroutine),
    (inspect.isgenerator, _generator),
    (inspect.isasyncgen, _async_generator),
)
"""What a plain function may return that is still to be done, and what covers it."""


def _within(inside: Ambient, step: Callable[[], Any]) -> Any:
    outside = current()
    enter(inside)
    try:
        return step()
    finally:
        enter(outside)
