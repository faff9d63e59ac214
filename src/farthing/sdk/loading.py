"""
Modules that are loaded later: told once each of them is there.

SDKs import a library where they first need it, which may be in the middle of a call, so looking at what is loaded when
a budget is entered would come too late.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Watcher:
    """A finder that finds nothing by itself. It has each awaited module's own loader say when it has run it."""

    def __init__(self, names: frozenset[str], loaded: Callable[[], None]) -> None:
        self._names = names
        self._loaded = loaded

    def begin(self) -> None:
        sys.meta_path.insert(0, self)

    def stop(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            return None
        others = (finder for finder in tuple(sys.meta_path) if not isinstance(finder, Watcher))
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            self._loaded()

        # Every spec has a loader of its own, so this is for this one module only.
        loader.exec_module = exec_module
