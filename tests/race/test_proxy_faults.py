"""Faults on both sides of one proxy, all at once: every call is accounted for, and nothing stays open or held."""

from __future__ import annotations

import sys

import pytest

from bench.faults.mix import KINDS
from bench.faults.suite import Plan, run


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system for what a process has open as Linux does")
def test_nothing_is_left_after_calls_with_faults() -> None:
    """`python -m bench faults` makes 100,000 of them. Memory says nothing in a run as short as this one."""
    plan = Plan(400, records=50, warm_up=len(KINDS), at_once=48)
    missed = [figure for figure in run(plan) if figure.met is False and "memory" not in figure.what]
    assert not missed, "\n".join(f"{figure.what}: {figure.value} ({figure.beside})" for figure in missed)
