"""A configuration that is read anew at an awkward moment."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any

import pytest

from farthing import start_proxy
from farthing.proxy.process import workers
from farthing.proxy.process.workers import Workers
from farthing.proxy.settings import ProxySettings

OLD = ProxySettings(port=0)
NEW = replace(OLD, quiet=True)


def test_a_worker_that_is_being_started_takes_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes before the watcher knows of its new process."""
    started: list[list[Any]] = []

    class Child:
        def __init__(self, settings: ProxySettings, *_: object) -> None:
            self.took: list[Any] = [settings]
            started.append(self.took)
            team.reload(NEW)

        def tell(self, message: object) -> None:
            self.took.append(message)

    monkeypatch.setattr(workers, "_Child", Child)
    with socket.socket() as listening:
        team = Workers(OLD, listening)
        team._begin(0)
    assert started == [[OLD, NEW]]
    assert len(team._children) == 1


def test_a_worker_that_has_stopped_takes_no_settings() -> None:
    server = start_proxy(OLD, block=False)
    server.stop()
    server._worker.reload(NEW)
