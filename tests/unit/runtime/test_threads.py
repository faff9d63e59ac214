"""Threads that follow the scope they are started in, where starting them is not plain sailing."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import farthing
from farthing.runtime.ambient import current

pytestmark = pytest.mark.usefixtures("farthing_isolated")


def tags() -> dict[str, str]:
    return dict(current().tags)


def test_a_thread_that_the_system_could_not_start_can_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []
    thread = threading.Thread(target=lambda: seen.append(tags()))

    def refuse(*given: Any, **named: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, farthing.track(a=1):
        for name in ("_start_new_thread", "_start_joinable_thread"):
            if hasattr(threading, name):
                patch.setattr(threading, name, refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            thread.start()
    with farthing.track(b=2):
        thread.start()
    thread.join()
    assert seen == [{"b": "2"}]
    assert "run" not in vars(thread)


def test_a_thread_whose_run_was_given_to_it_keeps_it() -> None:
    seen: list[dict[str, str]] = []

    def run() -> None:
        seen.append(tags())

    thread = threading.Thread()
    thread.run = run  # type: ignore[method-assign]
    with farthing.track(a=1):
        thread.start()
    thread.join()
    assert seen == [{"a": "1"}]
    assert thread.run is run
