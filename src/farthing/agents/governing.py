"""
``govern``: a function that is charged to an agent. Sync and async functions, generators and async generators, methods.

The body runs in the agent's scope (:mod:`farthing.scopes.bodies`); around it stands one piece of work. A generator that
is left half-way is charged for what it had yielded.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from ..calls.steps import advance, advance_async, advance_detached
from ..runtime.default import runtime
from ..scopes.bodies import around
from .piece import Governing, Piece

F = TypeVar("F", bound=Callable[..., Any])


def governed(function: F, governing: Governing) -> F:
    """The function, governed; of the same kind as it is."""
    if inspect.isasyncgenfunction(function):
        wrapper: Callable[..., Any] = _async_generator(function, governing)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, governing)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine(function, governing)
    else:
        wrapper = _plain(function, governing)
    return functools.wraps(function)(wrapper)  # type: ignore[return-value]


def is_method(function: Callable[..., Any]) -> bool:
    """Whether a function stands in a class and is given its object, or its class, first."""
    if inspect.ismethod(function):
        return False
    place = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not place or place.endswith("<locals>"):
        return False
    code = getattr(function, "__code__", None)
    return code is not None and code.co_argcount > 0 and code.co_varnames[0] in ("self", "cls")


def _plain(function: Callable[..., Any], governing: Governing) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        piece = Piece(governing, args, kwargs)
        advance(piece.begin())
        try:
            result = around(function, piece.opened)(*args, **kwargs)
        except Exception as error:  # whatever the function raises, its work is charged for
            advance(piece.fail(error))
            raise
        except BaseException as error:  # called away: it may not wait for anything
            advance_detached(piece.fail(error))
            raise
        # Another decorator may hide what kind of function this is: then the work is still to be done.
        if inspect.isawaitable(result):
            return _awaited(result, piece)
        if inspect.isgenerator(result):
            return _generator(lambda: result, governing, piece)()
        if inspect.isasyncgen(result):
            return _async_generator(lambda: result, governing, piece)()
        advance(piece.finish(result))
        return result

    return wrapper


def _coroutine(function: Callable[..., Any], governing: Governing) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        piece = Piece(governing, args, kwargs)
        await advance_async(piece.begin())
        return await _awaited(around(function, piece.opened)(*args, **kwargs), piece)

    return wrapper


async def _awaited(work: Any, piece: Piece) -> Any:
    try:
        result = await work
    except Exception as error:  # whatever the function raises, its work is charged for
        await advance_async(piece.fail(error))
        raise
    except BaseException as error:  # cancelled: it may not wait for anything
        advance_detached(piece.fail(error))
        raise
    await advance_async(piece.finish(result))
    return result


def _generator(function: Callable[..., Any], governing: Governing, begun: Piece | None = None) -> Callable[..., Any]:
    """*begun*: the piece that a function began which then returned this generator."""

    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        piece = begun or Piece(governing, args, kwargs)
        if begun is None:
            advance(piece.begin())
        housekeeper = runtime().housekeeper
        housekeeper.start()
        body = around(function, piece.opened)(*args, **kwargs) if begun is None else function()
        said: list[Any] = []
        step: Callable[[], Any] = functools.partial(next, body)
        while True:
            try:
                value = step()
            except StopIteration as stop:
                advance(piece.finish(stop.value, said=said))
                return stop.value
            except BaseException as error:  # whatever the function raises, its work is charged for
                advance(piece.fail(error))
                raise
            said.append(value)
            try:
                sent = yield value
            except GeneratorExit:
                body.close()
                # It may be collected right now, wherever that is: so this only enqueues.
                housekeeper.put(lambda: advance_detached(piece.leave(said)))
                raise
            except BaseException as error:  # noqa: BLE001 - handed to the body, as a plain generator would have it
                step = functools.partial(body.throw, error)
            else:
                step = functools.partial(body.send, sent)

    return wrapper


def _async_generator(
    function: Callable[..., Any], governing: Governing, begun: Piece | None = None
) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        piece = begun or Piece(governing, args, kwargs)
        if begun is None:
            await advance_async(piece.begin())
        housekeeper = runtime().housekeeper
        housekeeper.start()
        body = around(function, piece.opened)(*args, **kwargs) if begun is None else function()
        said: list[Any] = []
        step: Callable[[], Any] = body.__anext__
        while True:
            try:
                value = await step()
            except StopAsyncIteration:
                await advance_async(piece.finish(None, said=said))
                return
            except Exception as error:  # whatever the function raises, its work is charged for
                await advance_async(piece.fail(error))
                raise
            except BaseException as error:  # cancelled: it may not wait for anything
                advance_detached(piece.fail(error))
                raise
            said.append(value)
            try:
                sent = yield value
            except GeneratorExit:
                await body.aclose()
                # It may be collected right now, wherever that is: so this only enqueues.
                housekeeper.put(lambda: advance_detached(piece.leave(said)))
                raise
            except BaseException as error:  # noqa: BLE001 - handed to the body, as a plain generator would have it
                step = functools.partial(body.athrow, error)
            else:
                step = functools.partial(body.asend, sent)

    return wrapper
