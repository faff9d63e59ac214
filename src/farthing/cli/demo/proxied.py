"""The scene without farthing in the program: plain HTTP calls, and a proxy that has the budget."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ...kernel.money import usd_from_nano
from .callers import HTTPCaller
from .counters import CheckThenRecord, Tally
from .scenes import NANO_A_CALL, Row, Stage, all_at_once, answer


def with_proxy() -> bool:
    """Whether the parts that a proxy is made of are installed."""
    return importlib.util.find_spec("uvicorn") is not None


def through_the_proxy(on: Stage, calls: int, latency_seconds: float) -> list[Row]:
    """So many plain HTTP calls at the same moment: to the provider itself, and to a proxy with a budget before it."""
    scene, limit_nano = f"{calls} through the proxy", calls * NANO_A_CALL
    on.naive.start_over(answer(latency_seconds))
    on.ours.start_over(answer(latency_seconds))
    counter = CheckThenRecord(limit_nano, on.tariff)
    naive, ours = Tally(), Tally()
    direct = HTTPCaller(on.naive.provider.openai_url, held_usd=None)
    all_at_once(calls, lambda: naive.attempt(lambda: counter.call(direct.call)))
    with _proxy(on.ours.provider.openai_url, limit_nano) as url:
        proxied = HTTPCaller(f"{url}/v1", held_usd=None)
        all_at_once(calls, lambda: ours.attempt(proxied.call))
    return [on.row(scene, on.naive, limit_nano, naive), on.row(scene, on.ours, limit_nano, ours)]


@contextmanager
def _proxy(upstream_url: str, limit_nano: int) -> Iterator[str]:
    """What ``farthing serve --max-usd-total …`` starts, in this process and without a word. Its URL."""
    from ...proxy.flags import BudgetConfig
    from ...proxy.process.server import ProxyServer

    flags = BudgetConfig(
        max_tokens_per_request=None, max_usd_total=usd_from_nano(limit_nano), upstream_url=upstream_url, quiet=True
    )
    with _silence("farthing.proxy"), ProxyServer(flags.settings(port=0), flags) as server:
        server.start()
        yield server.url


@contextmanager
def _silence(name: str) -> Iterator[None]:
    """This logger's lines are nobody's: the scene counts the refusals."""
    logger, nowhere = logging.getLogger(name), logging.NullHandler()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)
        logger.propagate = before
