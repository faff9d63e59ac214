"""Ids of calls: never twice, whatever threads and forks there are."""

from __future__ import annotations

import os
import re
import threading

import pytest

from farthing.runtime.ids import new_id


def test_are_24_hexadecimal_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{24}", new_id())


def test_are_never_given_twice_to_threads() -> None:
    found: list[str] = []

    def take() -> None:
        found.extend([new_id() for _ in range(2_000)])

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(found) == 16_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_others_than_its_parent() -> None:
    new_id()  # so that some are ready
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sending, "".join(new_id() for _ in range(20)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    text = os.read(receiving, 4096).decode()
    os.close(receiving)
    os.close(sending)
    theirs = {text[start : start + 24] for start in range(0, len(text), 24)}
    assert len(theirs) == 20
    assert not theirs & {new_id() for _ in range(600)}
