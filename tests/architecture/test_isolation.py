"""The test run itself: nothing leaves this machine, and nothing of the developer's own comes in."""

from __future__ import annotations

import os
import sys
import tempfile

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 443), ("api.example.com", 443), ("2001:db8::1", 443, 0, 0)])
def test_a_connection_to_another_machine_is_refused(address: tuple[object, ...]) -> None:
    # The event that the socket module raises before it connects; nothing is sent to find out.
    with pytest.raises(PermissionError, match="loopback"):
        sys.audit("socket.connect", None, address)


@pytest.mark.parametrize("address", [("127.0.0.1", 80), ("::1", 80, 0, 0), ("localhost", 80), "/run/a.socket"])
def test_a_connection_to_this_machine_is_not(address: object) -> None:
    sys.audit("socket.connect", None, address)


def test_the_default_ledger_of_the_developer_is_out_of_reach() -> None:
    assert os.environ["XDG_DATA_HOME"].startswith(tempfile.gettempdir())
    assert {name for name in os.environ if name.startswith("FARTHING_")} <= {"FARTHING_TEST_WHEEL"}
