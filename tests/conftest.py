"""
Settings that hold for every test: nothing of the developer's own machine is read or written, nothing leaves it, and
what hypothesis finds can be replayed.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

WHEEL_SWITCH = "FARTHING_TEST_WHEEL"
LOOPBACK = ("127.", "::1", "localhost")

# No deadline: speed lives in bench/, and the machine of a test run may be busy. In CI the examples are fixed, so that
# a red run is a change of ours; on a developer's machine they wander, and what they find is kept and replayed.
settings.register_profile("farthing", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("farthing")


def _stay_on_this_machine(event: str, args: tuple[Any, ...]) -> None:
    """Refuse every connection that is not to this machine: a test that needs the network is a bug."""
    if event == "socket.connect" and isinstance(args[1], tuple) and not str(args[1][0]).startswith(LOOPBACK):
        raise PermissionError(f"tests use the loopback network only; this one connects to {args[1]!r}")


def _is_of_the_developer(name: str) -> bool:
    """Whether an environment variable would point farthing or an SDK at something outside of the test."""
    if name in {"OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"} or name.lower().endswith("_proxy"):
        return True
    return name.startswith("FARTHING_") and name != WHEEL_SWITCH


def pytest_configure(config: pytest.Config) -> None:
    # Before any test module is imported: farthing may read its environment when it is first used.
    for name in filter(_is_of_the_developer, list(os.environ)):
        del os.environ[name]
    home = tempfile.TemporaryDirectory(prefix="farthing-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    for name in ("XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        os.environ[name] = str(Path(home.name, name.lower()))
    if not config.pluginmanager.hasplugin("farthing"):  # the source tree, not an installed wheel, is under test
        config.pluginmanager.import_plugin("farthing.testing.pytest_plugin")
    sys.addaudithook(_stay_on_this_machine)


@pytest.fixture(scope="module", autouse=True)
def _set_aside() -> None:
    """What earlier files have loaded, SDKs above all, stays loaded: no collection has to look at it again."""
    gc.collect()
    gc.freeze()
