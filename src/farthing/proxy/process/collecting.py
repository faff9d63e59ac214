"""Python's garbage collector, for a process that only serves: nearly all of its objects go without it."""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 10_000, 20, 20
"""Twenty times rarer than usual: each look costs the more, the more calls are in flight."""


def collect_rarely() -> None:
    """
    Look for cycles less often, and never among what is there by now. For a process of our own, once it is warm: it
    would be somebody else's to decide in a program that starts a proxy beside its own work.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
